// What a run adds to the page of its policies: sentences, tables, energy by layer and part, sensitivity, learning.
for (const host of document.querySelectorAll("[data-prose]"))
  for (const sentence of data.prose[host.dataset.prose] ?? []) host.append(element("p", sentence));

for (const host of document.querySelectorAll("[data-table]")) {
  const { head, rows } = data.tables[host.dataset.table], table = element("table"), body = table.createTBody();
  const kind = column => column ? {} : { class: "words" };
  table.createTHead().append(element("tr"));
  head.forEach((name, column) => table.tHead.rows[0].append(element("th", name, { scope: "col", ...kind(column) })));
  for (const row of rows) {
    const line = element("tr");
    const text = value => typeof value === "number" ? words(value) : value;
    row.forEach((value, column) => line.append(element("td", text(value), kind(column))));
    body.append(line);
  }
  host.append(table);
}

// Energy of the chosen policy by layer: each layer's by the bits of its weights, and of its inputs where those vary.
if (data.layer_energy) {
  const host = element("div", "", { class: "chart" });
  const energyOf = (layer, bits) => {
    const byBits = layer.weights === null ? layer.uj : layer.uj[bits[layer.weights]];
    return (layer.inputs === null ? byBits : byBits?.[bits[layer.inputs]]) ?? null;
  };
  const energies = policy => data.layer_energy.map(layer => policy?.bits ? energyOf(layer, policy.bits) : null);
  byId("bits").after(host);
  const shown = bars(host, "energy of each layer of the chosen policy", "energy (µJ)", () => ({
    names: data.layer_energy.map(layer => layer.name),
    series: [{ name: "energy (µJ)", variable: "mark-1", values: energies(chosen) }],
    marks: chosen !== data.policy && data.policy?.bits ? energies(data.policy) : undefined,
  }));
  document.addEventListener("chosen", () => shown.redraw());
}

for (const host of document.querySelectorAll("[data-bars]")) {
  if (!data.bars[host.dataset.bars]) continue;  // a sentence says what makes it
  const { label, unit, names, series, stacked } = data.bars[host.dataset.bars];
  const coloured = series.map((one, number) => ({ ...one, variable: `series-${number % 8}` }));
  legend(host, coloured);
  bars(host, label, unit, () => ({ names, series: coloured }), { stacked });
}

for (const host of document.querySelectorAll("[data-lines]"))
  if (data.lines[host.dataset.lines]) lines(host, data.lines[host.dataset.lines]);

// Lines over steps; the pointer, or a button of the legend, brings one of them forward.
// `steps` are those of all series, unless one has its own.
function lines(host, { label, unit, steps: shared, series: given, spans }) {
  const series = given.map(one => ({ steps: shared, ...one }));
  const dashes = [[], [7, 3], [2, 3], [7, 3, 2, 3]];
  const all = series.flatMap(one => one.values), steps = series.flatMap(one => one.steps);
  const [low, high] = [Math.min(...all), Math.max(...all)], rim = (high - low || 1) * 0.06;
  const variable = number => `series-${number % 8}`, dash = number => dashes[Math.floor(number / 8) % 4];
  let forward = null, box, x, y;
  const shown = picture(host, label, 300, (context, width, height) => {
    box = { left: 56, right: width - 10, top: 24, bottom: height - 46 };
    x = scale(Math.min(...steps), Math.max(...steps), box.left, box.right);
    y = scale(low - rim, high + rim, box.bottom, box.top);
    context.fillStyle = colour("grid");
    for (const [from, to] of spans ?? [])
      context.fillRect(x(from), box.top, Math.max(x(to) - x(from), 1), box.bottom - box.top);
    axes(context, box, x, y, "step", unit);
    series.forEach((one, number) => {
      context.globalAlpha = forward === null || forward === number ? 1 : 0.15;
      context.strokeStyle = colour(variable(number));
      context.lineWidth = forward === number ? 3 : 1.6;
      context.setLineDash(dash(number));
      context.beginPath();
      one.values.forEach((value, place) => context.lineTo(x(one.steps[place]), y(value)));
      context.stroke();
    });
    context.setLineDash([]);
    context.globalAlpha = 1;
  });
  const bring = number => { if (number !== forward) { forward = number; shown.redraw(); } };
  const list = element("p", "", { class: series.length > 20 ? "legend long" : "legend" });
  series.forEach((one, number) => {
    const entry = element("button", "", { type: "button" }), swatch = element("i", "", { class: "line" });
    swatch.style.borderColor = `var(--${variable(number)})`;
    swatch.style.borderTopStyle = ["solid", "dashed", "dotted", "double"][Math.floor(number / 8) % 4];
    entry.title = one.name;
    entry.append(swatch, shorter(one.name));
    for (const event of ["pointerenter", "focus"]) entry.addEventListener(event, () => bring(number));
    for (const event of ["pointerleave", "blur"]) entry.addEventListener(event, () => bring(null));
    list.append(entry);
  });
  host.before(list);
  shown.canvas.addEventListener("pointermove", event => {
    const gap = place => Math.abs(x(place) - event.offsetX);
    const near = series.map((one, number) => {
      const at = one.steps.reduce((best, step, place) => gap(step) < gap(one.steps[best]) ? place : best, 0);
      return { number, at, distance: Math.abs(y(one.values[at]) - event.offsetY) };
    }).reduce((a, b) => b.distance < a.distance ? b : a);
    if (near.distance > 25) { tip(null); return bring(null); }
    bring(near.number);
    const one = series[near.number];
    tip([one.name, `step ${words(one.steps[near.at])}: ${words(one.values[near.at])}`], event);
  });
  shown.canvas.addEventListener("pointerleave", () => { tip(null); bring(null); });
}
