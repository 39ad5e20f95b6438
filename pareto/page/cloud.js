// The cloud of all policies with its frontier: hover, choose by click or key, set a budget by slider or by dragging.
const cloud = data.cloud, columns = cloud.columns, count = columns[cloud.x].length;
const xs = columns[cloud.x], ys = columns[cloud.y];
const [xSense, ySense] = cloud.sense;
const onFront = new Set(cloud.front);
let budget = null, hovered = null, best = null, dropped = 0;

const drawable = row => xs[row] !== null && ys[row] !== null;
const within = row => budget === null || (xSense === "min" ? xs[row] <= budget : xs[row] >= budget);
const better = (a, b, sense) => sense === "min" ? a < b : a > b;

const marks = cloud.marks.map((mark, number) => ({ ...mark, variable: `mark-${number % 4}` }));
const spread = (values, more) => {
  let low = Infinity, high = -Infinity;
  for (const value of [...values, ...more].filter(each => each !== null))
    [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low > high) [low, high] = [0, 1];
  const rim = (high - low || Math.abs(high) || 1) * 0.04;
  return [low - rim, high + rim];
};
const xSpread = spread(xs, [...marks.map(mark => mark.x), ...cloud.budgets]);
const ySpread = spread(ys, [...marks.map(mark => mark.y), ...(cloud.band ?? []).slice(1).flat()]);
for (let row = 0; row < count; row++) dropped += !drawable(row);

function bitsOf(row) {
  const size = data.layers.length;
  return size ? Array.from(cloud.bits.slice(row * size, (row + 1) * size), digit => parseInt(digit, 36)) : null;
}

function policyOf(row) {
  const mark = cloud.marks.find(one => one.row === row);
  if (mark && mark.label === data.policy?.label) return data.policy;
  const values = Object.fromEntries(Object.entries(columns).map(([name, all]) => [name, all[row]]));
  const label = mark ? mark.label : `Policy ${words(row + 1)}${onFront.has(row) ? ", on the frontier" : ""}`;
  return { label, bits: bitsOf(row), values, row };
}
if (data.policy) data.policy.row = cloud.marks.find(mark => mark.label === data.policy.label)?.row ?? null;

const axisNames = [cloud.x, cloud.y].map(name => data.labels[name] ?? name);
let box, x, y;
function drawCloud(context, width, height) {
  box = { left: 56, right: width - 10, top: 24, bottom: height - 46 };
  x = scale(...xSpread, box.left, box.right);
  y = scale(...ySpread, box.bottom, box.top);
  axes(context, box, x, y, ...axisNames);
  drawPolicies(context);
  if (cloud.band) drawBand(context, ...cloud.band);
  drawFrontier(context);
  for (const limit of [...cloud.budgets, ...(budget === null ? [] : [budget])]) {
    context.strokeStyle = colour("budget");
    context.lineWidth = 2;
    context.setLineDash([7, 4]);
    segment(context, Math.round(x(limit)), box.top, Math.round(x(limit)), box.bottom);
    context.setLineDash([]);
  }
  drawUniform(context);
  for (const row of [...cloud.best, ...(best === null ? [] : [best])]) ring(context, row, "budget", 8);
  marks.forEach(mark => drawMark(context, mark));
  if (chosen?.row != null) ring(context, chosen.row, "chosen", 11);
  if (hovered !== null) ring(context, hovered, "chosen", 6);
}

function drawPolicies(context) {
  const size = count < 2000 ? 4 : 2;
  for (const inside of [false, true]) {
    context.fillStyle = colour(inside ? "policy" : "beyond");
    context.globalAlpha = count < 2000 ? 0.7 : Math.max(0.25, Math.min(0.7, 5000 / count));
    for (let row = 0; row < count; row++)
      if (drawable(row) && within(row) === inside)
        context.fillRect(x(xs[row]) - size / 2, y(ys[row]) - size / 2, size, size);
  }
  context.globalAlpha = 1;
}

// Where the frontier on very many images may lie: a staircase of two heights.
function drawBand(context, at, low, high) {
  context.fillStyle = colour("front");
  context.globalAlpha = 0.25;
  at.forEach((from, place) => {
    const width = x(at[place + 1] ?? from) - x(from);
    context.fillRect(x(from), y(high[place]), width, y(low[place]) - y(high[place]));
  });
  context.globalAlpha = 1;
}

function drawFrontier(context) {
  const rows = cloud.front.filter(drawable);
  context.strokeStyle = context.fillStyle = colour("front");
  context.lineWidth = 1.8;
  if (cloud.stairs) {
    context.beginPath();
    rows.forEach((row, place) => {
      const before = rows[place - 1];
      if (!place) return context.moveTo(x(xs[row]), y(ys[row]));
      // Where x is a cost, paying more than for one point but less than for the next still buys only the first.
      context.lineTo(...(xSense === "min" ? [x(xs[row]), y(ys[before])] : [x(xs[before]), y(ys[row])]));
      context.lineTo(x(xs[row]), y(ys[row]));
    });
    context.stroke();
  }
  for (const row of rows) dot(context, row, rows.length < 200 ? 3.5 : 2);
}

function drawUniform(context) {
  context.textAlign = "left";
  context.textBaseline = "top";
  for (const [bits, row] of cloud.uniform.filter(([, row]) => drawable(row))) {
    const [left, top] = [x(xs[row]) - 4, y(ys[row]) - 4];
    context.fillStyle = colour("ground");
    context.strokeStyle = colour("ink");
    context.lineWidth = 1.5;
    context.fillRect(left, top, 8, 8);
    context.strokeRect(left, top, 8, 8);
    haloed(context, String(bits), left + 11, top + 5, colour("ink"));
  }
}

function drawMark(context, mark) {
  if (mark.x === null || mark.y === null) return;
  const [across, up] = [x(mark.x), y(mark.y)];
  context.beginPath();
  for (let corner = 0; corner < 10; corner++) {
    const reach = corner % 2 ? 4 : 10, angle = Math.PI * (corner / 5 - 0.5);
    context.lineTo(across + reach * Math.cos(angle), up + reach * Math.sin(angle));
  }
  context.closePath();
  context.fillStyle = colour(mark.variable);
  context.strokeStyle = colour("ink");
  context.lineWidth = 1;
  context.fill();
  context.stroke();
}

function dot(context, row, radius) {
  context.beginPath();
  context.arc(x(xs[row]), y(ys[row]), radius, 0, 2 * Math.PI);
  context.fill();
}

function ring(context, row, variable, radius) {
  if (!drawable(row)) return;
  context.strokeStyle = colour(variable);
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x(xs[row]), y(ys[row]), radius, 0, 2 * Math.PI);
  context.stroke();
}

const behind = mark => mark.efficient ? "" : " (not on the frontier)";
legend(byId("cloud"), [
  { name: `${words(count)} policies`, variable: "policy" },
  { name: `frontier (${words(cloud.front.length)})`, variable: "front", line: cloud.stairs },
  ...(cloud.band ? [{ name: "shaded: where the frontier on many images may lie (90 %)" }] : []),
  ...(cloud.uniform.length ? [{ name: "□ uniform, with its bits" }] : []),
  ...marks.map(mark => ({ name: mark.label + behind(mark), variable: mark.variable })),
  { name: "budget, best within it", variable: "budget", line: true },
  ...(dropped ? [{ name: `${words(dropped)} without finite values are not drawn` }] : []),
]);
const view = picture(byId("cloud"), "all policies; arrow keys walk along the frontier", 420, drawCloud);
view.canvas.tabIndex = 0;
view.canvas.setAttribute("role", "application");  // it takes keys; what they choose is said by the section below

// A star or a dot of the frontier lies above the points that it covers: it is met before them.
const marked = new Set(marks.map(mark => mark.row));
function nearest(event, reach = 14) {
  let found = null, least = reach * reach;
  const measure = row => (x(xs[row]) - event.offsetX) ** 2 + (y(ys[row]) - event.offsetY) ** 2;
  for (let row = 0; row < count; row++) {
    const distance = drawable(row) ? measure(row) - (marked.has(row) ? 81 : onFront.has(row) ? 9 : 0) : Infinity;
    if (distance < least) [found, least] = [row, distance];
  }
  return found;
}

// A marked point that is no policy of the table.
const starAt = event => marks.find(mark =>
  mark.row === null && Math.hypot(x(mark.x) - event.offsetX, y(mark.y) - event.offsetY) < 10);
const describeMark = mark =>
  [mark.label, `${axisNames[0]} ${words(mark.x)}`, `${axisNames[1]} ${words(mark.y)}`];

function describe(row) {
  const policy = policyOf(row), bits = policy.bits ?? [];
  const values = Object.entries(policy.values).map(([name, value]) => `${data.labels[name] ?? name} ${words(value)}`);
  const layers = bits.map((width, layer) => `${shorter(data.layers[layer])}: ${width}`);
  return [policy.label, ...values, ...(bits.length > 16 ? inRows(bits) : layers)];
}

// Deep networks: digits in rows of 20, as nobody reads 54 lines beside a pointer.
const inRows = bits => Array.from({ length: Math.ceil(bits.length / 20) }, (_, line) =>
  (line ? "     " : "bits ") + bits.slice(20 * line, 20 * line + 20).map(width => width.toString(36)).join(""));

function choose(row) {
  show(policyOf(row));
  view.redraw();
  markChosen();
}

function setBudget(limit) {
  const loose = xSense === "min" ? xSpread[1] : xSpread[0];
  budget = limit === null || !better(limit, loose, xSense) ? null : limit;
  best = null;
  for (let row = 0; budget !== null && row < count; row++)
    if (drawable(row) && within(row) && (best === null || better(ys[row], ys[best], ySense) ||
      (ys[row] === ys[best] && better(xs[row], xs[best], xSense)))) best = row;
  const share = ((budget ?? loose) - xSpread[0]) / (xSpread[1] - xSpread[0]), limitWords = budget === null ? "none" :
    `${words(budget, 4)}: ` + (best === null ? "no policy" : `best ${words(ys[best])}`);
  byId("budget").value = Math.round(1000 * share);
  byId("budget").setAttribute("aria-valuetext", limitWords);
  byId("budget-value").textContent = limitWords;
  if (best !== null) show(policyOf(best));
  view.redraw();
  fillTable();
}

byId("budget-label").textContent = `Budget, ${xSense === "min" ? "at most" : "at least"}, ${axisNames[0]}`;
byId("budget").addEventListener("input", event =>
  setBudget(xSpread[0] + event.target.value / 1000 * (xSpread[1] - xSpread[0])));
byId("no-budget").addEventListener("click", () => setBudget(null));

let pressed = null;
view.canvas.addEventListener("pointerdown", event => { pressed = { from: event.offsetX, brushing: false }; });
view.canvas.addEventListener("pointermove", event => {
  if (pressed && event.buttons && (pressed.brushing ||= Math.abs(event.offsetX - pressed.from) > 5)) {
    view.canvas.setPointerCapture(event.pointerId);
    tip(null);
    return setBudget(Math.max(xSpread[0], Math.min(xSpread[1], x.invert(event.offsetX))));
  }
  const mark = starAt(event), row = mark ? null : nearest(event);
  tip(mark ? describeMark(mark) : row === null ? null : describe(row), event);
  if (row !== hovered) { hovered = row; view.redraw(); }
});
view.canvas.addEventListener("pointerup", event => {
  const row = pressed?.brushing ? null : nearest(event, 20);
  if (row !== null) choose(row);
  pressed = null;
});
view.canvas.addEventListener("pointercancel", () => { pressed = null; });
view.canvas.addEventListener("pointerleave", () => { tip(null); hovered = null; view.redraw(); });
view.canvas.addEventListener("keydown", event => {
  const rows = cloud.front.filter(row => drawable(row) && within(row)), at = rows.indexOf(chosen?.row ?? -1);
  const last = rows.length - 1;
  const next = { ArrowRight: at + 1, ArrowLeft: at < 0 ? last : at - 1, Home: 0, End: last }[event.key];
  if (next === undefined || !rows.length) return;
  event.preventDefault();
  choose(rows[Math.max(0, Math.min(last, next))]);
});
