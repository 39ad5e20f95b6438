// The policies as a table: sorted by a click on a column's head, a part of the rows at a time, within the budget.
const STEP = 100;
const MEAN = "\0mean bits", BITS = "\0bits";  // no column of a table is called so
const heads = [...Object.keys(columns), ...(data.layers.length ? [MEAN, BITS] : [])];
const meanBits = xs.map((_, row) => mean(bitsOf(row)));
let sorted = { by: cloud.x, descending: xSense === "max" }, shownRows = STEP;

function key(row) {
  if (sorted.by === BITS) return cloud.bits.slice(row * data.layers.length, (row + 1) * data.layers.length);
  return sorted.by === MEAN ? meanBits[row] : columns[sorted.by][row];
}

function tableRows() {
  const all = byId("which").value === "front" ? cloud.front : xs.map((_, row) => row);
  const rows = all.filter(row => drawable(row) ? within(row) : budget === null).map(row => [key(row), row]);
  const order = (a, b) => a === b ? 0 : (a < b) === sorted.descending ? 1 : -1;
  rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : order(a, b));
  return rows.map(([, row]) => row);
}

function fillTable() {
  const rows = tableRows();
  byId("count").textContent = `${words(rows.length)} rows` + (budget === null ? "" : " within the budget");
  byId("more").hidden = rows.length <= shownRows;
  byId("policies").tBodies[0].replaceChildren(...rows.slice(0, shownRows).map(tableRow));
  for (const head of byId("policies").tHead.querySelectorAll("th"))
    head.ariaSort = head.dataset.by !== sorted.by ? "none" : sorted.descending ? "descending" : "ascending";
  markChosen();
}

function tableRow(row) {
  const line = element("tr");
  line.dataset.row = row;
  for (const name of Object.keys(columns)) line.append(element("td", words(columns[name][row])));
  if (data.layers.length) {
    const digits = cloud.bits.slice(row * data.layers.length, (row + 1) * data.layers.length);
    line.append(element("td", words(meanBits[row], 3)), element("td", digits, { class: "bits" }));
  }
  return line;
}

function markChosen() {
  for (const line of byId("policies").tBodies[0].rows)
    line.classList.toggle("chosen", +line.dataset.row === chosen?.row);
}

function sortBy(name) {
  sorted = { by: name, descending: sorted.by === name ? !sorted.descending : false };
  fillTable();
}

const headRow = element("tr");
for (const name of heads) {
  const head = element("th", "", { scope: "col" });
  const button = element("button", data.labels[name] ?? name.replace("\0", ""), { type: "button" });
  head.dataset.by = name;
  if (name === BITS) button.title = data.layers.join(", ");
  button.addEventListener("click", () => sortBy(name));
  head.append(button);
  headRow.append(head);
}
byId("policies").tHead.append(headRow);
byId("policies").tBodies[0].addEventListener("click", event => choose(+event.target.closest("tr").dataset.row));
byId("rows").addEventListener("keydown", event => {
  const lines = [...byId("policies").tBodies[0].rows], step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target !== byId("rows")) return;
  event.preventDefault();
  const line = lines[lines.findIndex(one => one.classList.contains("chosen")) + step];
  if (!line) return;
  choose(+line.dataset.row);
  line.scrollIntoView({ block: "nearest" });
});
byId("which").addEventListener("change", () => { shownRows = STEP; fillTable(); });
byId("more").addEventListener("click", () => { shownRows += STEP; fillTable(); });

setBudget(null);
if (!chosen && cloud.front.length) choose(cloud.front.reduce((a, b) => better(ys[b], ys[a], ySense) ? b : a));
