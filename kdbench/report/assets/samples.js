function beginSamples() {
  offer(byId("sample-set"), Object.keys(data.samples).map((name) => [name, name]));
  byId("sample-set").addEventListener("input", showSet);
  for (const id of ["decoding", "sample"]) byId(id).addEventListener("input", showSample);
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    byId(id).addEventListener("click", () => {
      const count = byId("sample").options.length;
      byId("sample").selectedIndex = (byId("sample").selectedIndex + step + count) % count;
      showSample();
    });
  }
  showSet();
}

function showSet() {
  const { items, total, seeds } = data.samples[byId("sample-set").value];
  offer(byId("sample"), items.map((_, index) => [index, `${index + 1}`]));
  const some = items.length < total ? `The first ${items.length} of ${total} samples` : `All ${total} samples`;
  byId("sample-note").replaceChildren(
    `${some}; answers of the students of training seed ${seeds.join(" or ")}; the number is ROUGE-L.`,
  );
  if (items.length < total) {
    byId("sample-note").append(" More: ", make("code", {}, "kdbench report RUN --samples N"));
  }
  showSample();
}

function showSample() {
  const { items, withheld } = data.samples[byId("sample-set").value];
  const item = items[byId("sample").value];
  byId("prompt").replaceChildren(...promptOf(item, withheld));
  const answers = item[byId("decoding").value];
  byId("answers").replaceChildren(...data.variants.flatMap(({ name, reference }, index) => {
    if (!answers[index]) return [];
    const [words, score] = answers[index];
    const meter = make("meter", { min: 0, max: 100, value: score, "aria-label": "ROUGE-L" });
    const title = make("h3", {}, make("span", {}, name), make("span", {}, score.toFixed(1)));
    return [make("article", { class: reference ? "card reference" : "card" }, title, meter, textOf(words))];
  }));
}

function promptOf(item, withheld) {
  if (withheld) {
    return [make("p", { class: "hint" },
      "Prompt and references are left out: this set's records may not be passed on (redistribute: false).")];
  }
  if (item.instruction === undefined) {
    return [make("p", { class: "hint" },
      "The run's folder does not hold the prompts; the command that made it, given again, writes them there.")];
  }
  const parts = [["Instruction", textOf(item.instruction)]];
  if (item.input) parts.push(["Input", textOf(item.input)]);
  const references = item.references.map((text) => make("li", {}, textOf(text)));
  parts.push([references.length > 1 ? "References" : "Reference", make("ul", {}, ...references)]);
  return parts.map(([title, content]) => make("div", { class: "card" }, make("h3", {}, title), content));
}

const textOf = (text) => make("p", { class: "text", dir: "auto" }, text);
