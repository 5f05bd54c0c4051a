const FIGURE = 2; // the column whose set and metric are chosen
const sorting = { column: FIGURE, descending: true };

function beginTable() {
  offer(byId("set"), data.sets.map((name) => [name, name]));
  offer(byId("metric"), data.metrics);
  const heads = data.header.map((name, column) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => {
      sorting.descending = sorting.column === column ? !sorting.descending : column === FIGURE;
      sorting.column = column;
      showTable();
    });
    return make("th", { scope: "col" }, button);
  });
  heads.splice(FIGURE + 1, 0, make("th", { scope: "col", class: "interval", id: "scale" }));
  byId("table").tHead.append(make("tr", {}, ...heads));
  for (const id of ["set", "metric", "filter"]) byId(id).addEventListener("input", showTable);
  showTable();
}

function showTable() {
  const metric = byId("metric");
  const view = data.views[byId("set").value][metric.value];
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  const order = data.variants
    .map((_, index) => index)
    .filter((index) => words.every((word) => data.variants[index].name.toLowerCase().includes(word)))
    .sort((one, other) => compare(view.cells[one], view.cells[other]));
  const { low, high, at } = scaleOf(view.intervals);
  const rows = order.map((index) => rowOf(view, index, at));
  byId("table").tBodies[0].replaceChildren(...rows);
  byId("count").textContent = `${order.length} of ${data.variants.length} variants`;
  byId("scale").textContent = `95 % interval, ${low.toFixed(1)} to ${high.toFixed(1)}`;
  const buttons = [...byId("table").tHead.querySelectorAll("button")];
  buttons[FIGURE].textContent = metric.selectedOptions[0].textContent;
  buttons.forEach((button, column) => {
    const direction = sorting.descending ? "descending" : "ascending";
    if (column === sorting.column) button.parentNode.setAttribute("aria-sort", direction);
    else button.parentNode.removeAttribute("aria-sort");
  });
}

/** By the column's numbers, or its texts where it has none; empty cells stay last. */
function compare(one, other) {
  const [text, value] = one[sorting.column];
  const [otherText, otherValue] = other[sorting.column];
  const sign = sorting.descending ? -1 : 1;
  if (sorting.column === 0) return sign * text.localeCompare(otherText, "en", { numeric: true });
  if (value === null || otherValue === null) return (value === null) - (otherValue === null);
  return sign * (value - otherValue);
}

function rowOf(view, index, at) {
  const interval = view.intervals[index];
  const [name, ...others] = view.cells[index];
  const cells = others.map(([text, , bold]) => make("td", bold ? { class: "first" } : {}, text));
  cells.splice(FIGURE, 0, make("td", { class: "interval" }, bar(interval, at)));
  const kinds = [data.variants[index].reference && "reference", interval.diverged && "diverged"];
  const row = make("tr", { class: kinds.filter(Boolean).join(" ") });
  row.append(make("th", { scope: "row" }, name[0]), ...cells);
  return row;
}

/** From figures to per cent of the cell's width; those of diverged rows may lie past its edge. */
function scaleOf(intervals) {
  const sound = intervals.filter((interval) => !interval.diverged);
  const shown = sound.length ? sound : intervals;
  const values = shown.flatMap(({ mean, low, high }) => [mean, low ?? mean, high ?? mean]);
  const low = Math.min(...values), high = Math.max(...values);
  const share = (value) => (value - low) / (high - low || 1);
  return { low, high, at: (value) => `${2 + 96 * Math.min(1, Math.max(0, share(value)))}%` };
}

function bar({ mean, low, high }, at) {
  const label = low === null ? `${mean.toFixed(2)}` : `${low.toFixed(2)} to ${high.toFixed(2)}`;
  const image = draw("svg", { role: "img", "aria-label": label });
  if (low !== null) {
    image.append(draw("line", { x1: at(low), x2: at(high), y1: "50%", y2: "50%" }));
  }
  image.append(draw("circle", { cx: at(mean), cy: "50%", r: 4 }), draw("title", {}, label));
  return image;
}
