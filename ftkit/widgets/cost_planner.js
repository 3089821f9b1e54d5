function end(model, index, which, label) {
  const said = `${["low", "high"][which]} end of ${label.name}`;
  const input = element("input", { type: "number", min: 0, step: "any", ariaLabel: said, title: said });
  const update = () => {
    if (document.activeElement !== input) input.value = Number(model.get("ranges")[index][which].toPrecision(6));
  };
  input.addEventListener("change", () => {
    const value = Number(input.value);
    const ranges = model.get("ranges").map((ends) => [...ends]);
    if (input.value === "" || !(value >= 0)) return void (input.value = ranges[index][which]);
    ranges[index][which] = value;
    if (label.fixed) ranges[index] = [value, value];
    set(model, { ranges });
  });
  model.on("change:ranges", update);
  update();
  return element("td", label.fixed ? { colSpan: 2 } : {}, input);
}

function row(model, label, index, first) {
  const inputs = (label.fixed ? [0] : [0, 1]).map((which) => end(model, index, which, label));
  const unit = element("td", { className: "unit", textContent: label.unit });
  model.on("change:_labels", () => (unit.textContent = model.get("_labels")[index].unit));
  return element(
    "tr",
    {},
    element("td", { className: "term", textContent: first ? label.term : "" }),
    element("th", { scope: "row", textContent: label.name }),
    ...inputs,
    unit,
  );
}

function table(model) {
  const labels = model.get("_labels");
  const head = ["term", "number", "low", "high", "unit"].map((textContent) => element("th", { scope: "col", textContent }));
  const rows = labels.map((label, i) => row(model, label, i, i === 0 || labels[i - 1].term !== label.term));
  return element("table", { className: "ft-table" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
}

function hardware(model) {
  const names = model.get("_cards");
  if (names.length === 0) return [];
  const options = names.map((value) => element("option", { value, textContent: value }));
  const input = element("select", {}, ...options);
  const update = () => (input.value = model.get("hardware"));
  input.addEventListener("change", () => set(model, { hardware: input.value }));
  model.on("change:hardware", update);
  update();
  return [element("label", {}, "accelerator", input)];
}

function redraw(model) {
  const button = element("button", { type: "button", textContent: "draw again", title: "Another seed: how much of the picture is luck?" });
  button.addEventListener("click", () => set(model, { seed: model.get("seed") + 1 }));
  return button;
}

function render({ model, el }) {
  const summary = element("summary", { textContent: "Your numbers: 9 of 10 times, the truth lies between low and high" });
  explorer(
    el,
    model.get("_title"),
    element("div", { className: "ft-cpbar" }, ...hardware(model), redraw(model)),
    element("details", { className: "ft-cpin", open: true }, summary, table(model)),
    picture(model, "ft-cp"),
  );
}

export default { render };
