"use strict";
// What every picture of the page is drawn with: colours, numbers, a canvas as wide as its place, axes, bars, legends.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const FONT = "12px system-ui, sans-serif";
const pictures = [];  // each draws itself again: another width, another theme, paper

function words(value, digits = 4) {
  if (value === null || value === undefined) return "not a number";
  return value.toLocaleString("en-US", Number.isInteger(value) ? {} : { maximumSignificantDigits: digits });
}

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;  // never innerHTML: names are anything
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A canvas in `host`, at least `least` pixels wide; `draw(context, width, height)` draws it whole.
function picture(host, label, height, draw, least = 0) {
  const canvas = element("canvas", "", { role: "img", "aria-label": label });
  host.append(canvas);
  const redraw = () => {
    const width = Math.max(host.clientWidth, least), dense = window.devicePixelRatio || 1;
    if (!host.clientWidth) return;
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    const context = canvas.getContext("2d");
    context.scale(dense, dense);
    context.font = FONT;
    context.fillStyle = colour("ground");
    context.fillRect(0, 0, width, height);
    draw(context, width, height);
  };
  pictures.push(redraw);
  new ResizeObserver(redraw).observe(host);
  return { canvas, redraw };
}

const redrawAll = () => pictures.forEach(redraw => redraw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
const onPaper = is => () => { document.documentElement.classList.toggle("paper", is); redrawAll(); };
addEventListener("beforeprint", onPaper(true));
addEventListener("afterprint", onPaper(false));

// Round numbers between two bounds, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1) || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step || 0);  // || 0: no -0
  return found;
}

function scale(low, high, from, to) {
  const span = high - low || 1;
  const place = value => from + (value - low) / span * (to - from);
  place.invert = at => low + (at - from) / (to - from) * span;
  return Object.assign(place, { low, high });
}

// A value beside an axis, where there is no room for a million in full.
const tickWords = (value, axis) => Math.max(Math.abs(axis.low), Math.abs(axis.high)) < 1e6 || !value ? words(value, 6) :
  value.toLocaleString("en-US", { notation: "scientific", maximumSignificantDigits: 4 });

// Lines with their values; `box` has left, right, top, bottom in pixels. x may be null: the caller names what is below.
function axes(context, box, x, y, xLabel, yLabel) {
  context.strokeStyle = colour("grid");
  context.fillStyle = colour("quiet");
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of ticks(y.low, y.high, (box.bottom - box.top) / 50)) {
    segment(context, box.left, y(value), box.right, y(value));
    context.fillText(tickWords(value, y), box.left - 6, y(value));
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  if (x) {
    for (const value of ticks(x.low, x.high, (box.right - box.left) / 80)) {
      segment(context, x(value), box.top, x(value), box.bottom);
      context.fillText(tickWords(value, x), x(value), box.bottom + 6);
    }
    context.fillText(xLabel, (box.left + box.right) / 2, box.bottom + 24);
  }
  context.textAlign = "left";
  context.fillText(yLabel, 4, 2);
}

function segment(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

// The middle of a long name goes: networks tell layers apart by beginning and end.
const shorter = (name, most = 20) => name.length <= most ? name : name.slice(0, most - 11) + "…" + name.slice(-10);

// Text on a rim of the ground's colour: readable on top of points.
function haloed(context, text, x, y, ink) {
  context.lineWidth = 3;
  context.strokeStyle = colour("ground");
  context.strokeText(text, x, y);
  context.fillStyle = ink;
  context.fillText(text, x, y);
}

function tip(lines, pointer) {
  const box = byId("tip");
  box.hidden = !lines;
  if (!lines) return;
  box.textContent = lines.join("\n");
  const room = document.documentElement.clientWidth - box.offsetWidth - 8;
  box.style.left = Math.max(4, Math.min(pointer.pageX + 14, room + scrollX)) + "px";
  box.style.top = pointer.pageY + 14 + "px";
}

function legend(host, entries) {
  const list = element("p", "", { class: "legend" });
  for (const { name, variable, line } of entries) {
    const entry = element("span");
    if (variable) {
      const swatch = element("i", "", line ? { class: "line" } : {});
      swatch.style[line ? "borderColor" : "background"] = `var(--${variable})`;
      entry.append(swatch);
    }
    entry.append(name);
    list.append(entry);
  }
  host.before(list);
}

// Bars by layer, beside each other or stacked. `content()` gives {names, series, marks}, as what is shown can change:
// series are {name, variable, values, errors}, marks one more value a layer, drawn as a line across its bars.
function bars(host, label, unit, content, { stacked = false, numbers = false } = {}) {
  const { names, series } = content();
  const each = stacked || series.length === 1 ? 18 : 8 + 5 * series.length;  // 54 layers fit on a page
  const longest = Math.max(1, ...names.map(name => shorter(name).length));
  const sideways = names.length > 6 || longest > 12, below = sideways ? 14 + 6.3 * longest : 24;
  let place;
  const shown = picture(host, label, 210 + below, (context, width, height) => {
    const now = content(), [low, high] = barSpread(now, stacked);
    const box = { left: 56, right: width - 8, top: 24, bottom: height - below };
    const y = scale(low * 1.06, high * (numbers ? 1.15 : 1.06), box.bottom, box.top);
    place = scale(0, now.names.length, box.left, box.right);
    axes(context, box, null, y, "", unit);
    now.names.forEach((name, row) => {
      drawBars(context, now, row, place, y, { stacked, numbers });
      drawName(context, shorter(name), place(row + 0.5), box.bottom + 6, sideways);
    });
    context.strokeStyle = colour("quiet");
    context.lineWidth = 1;
    segment(context, box.left, y(0), box.right, y(0));
  }, 72 + each * names.length);
  host.tabIndex = 0;  // so that the keyboard scrolls what is wider than the page
  shown.canvas.addEventListener("pointermove", event => {
    const now = content(), row = Math.floor(place.invert(event.offsetX));
    if (row < 0 || row >= now.names.length) return tip(null);
    const error = one => one.errors?.[row] ? ` ± ${words(one.errors[row], 2)}` : "";
    tip([now.names[row], ...now.series.map(one => `${one.name} ${words(one.values[row])}${error(one)}`)], event);
  });
  shown.canvas.addEventListener("pointerleave", () => tip(null));
  return shown;
}

// The lowest and the highest end of all bars, their errors included; 0 is always between them.
function barSpread({ names, series, marks }, stacked) {
  const ends = stacked ?
    names.map((_, row) => series.reduce((sum, one) => sum + (one.values[row] ?? 0), 0)) :
    series.flatMap(one => one.values.flatMap((value, row) =>
      [-1, 1].map(sign => (value ?? 0) + sign * (one.errors?.[row] ?? 0))));
  const low = Math.min(0, ...ends), high = Math.max(0, ...ends, ...(marks ?? []));
  return [low, high || (low ? 0 : 1)];
}

function drawBars(context, { series, marks }, row, place, y, { stacked, numbers }) {
  const left = place(row), slot = place(row + 1) - left, thick = slot * 0.76 / (stacked ? 1 : series.length);
  let base = 0;
  series.forEach(({ variable, values, errors }, number) => {
    const value = values[row];
    if (value === null || value === undefined) return;
    const x = left + slot * 0.12 + (stacked ? 0 : number * thick), top = y(base + value), bottom = y(base);
    context.fillStyle = colour(variable);
    context.fillRect(x, Math.min(top, bottom), Math.max(thick - 1, 1), Math.max(Math.abs(top - bottom), 0.5));
    context.strokeStyle = context.fillStyle = colour("ink");
    context.lineWidth = 1;
    const middle = x + thick / 2, error = errors?.[row];
    if (error) segment(context, middle, y(value - error), middle, y(value + error));
    if (numbers) {
      context.textAlign = "center";
      context.textBaseline = "bottom";
      context.fillText(String(value), middle, top - 2);
    }
    if (stacked) base += value;
  });
  if (!marks) return;
  context.strokeStyle = colour("front");
  context.lineWidth = 2;
  segment(context, left + slot * 0.05, y(marks[row]), left + slot * 0.95, y(marks[row]));
}

function drawName(context, name, x, y, sideways) {
  context.save();
  context.translate(x, y);
  context.fillStyle = colour("quiet");
  context.textAlign = sideways ? "right" : "center";
  context.textBaseline = sideways ? "middle" : "top";
  if (sideways) context.rotate(-Math.PI / 2);
  context.fillText(name, 0, 0);
  context.restore();
}
