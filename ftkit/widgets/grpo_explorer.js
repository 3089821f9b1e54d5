// Controls only: the kernel draws, with the view function of the static page.

const CHOICES = [
  ["scale", "divide by the std of", { group: "the group", batch: "the batch", none: "nothing" }],
  ["loss_type", "loss type", { dapo: "dapo (TRL's default)", grpo: "grpo (the paper's)", dr_grpo: "dr_grpo", bnpo: "bnpo" }],
];
const EXAMPLES = [
  ["one right", "The one right answer is pushed up hard", (n) => spread(n, (i) => (i === 0 ? 1 : 0))],
  ["one wrong", "The mirror picture: only the wrong one moves much", (n) => spread(n, (i) => (i === 0 ? 0 : 1))],
  ["half right", "Every answer is pushed equally hard", (n) => spread(n, (i) => (i % 2 ? 0 : 1))],
  ["all right", "No signal: nobody is better than anybody else", (n) => spread(n, () => 1)],
  ["nearly the same", "Divided by a tiny spread, noise becomes a full-sized push", (n) => spread(n, (i) => 0.5 + 0.01 * (i % 3))],
];

function spread(count, score) {
  return Array.from({ length: count }, (_, i) => score(i));
}

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function set(model, values) {
  model.set(values);
  model.save_changes();
}

function slider(model, name, index, { label, min, max, step, digits }) {
  const said = `${label} of answer ${index + 1}`;
  const input = element("input", { type: "range", min, max, step, ariaLabel: said, title: said });
  const shown = element("output");
  const update = () => {
    const value = model.get(name)[index];
    input.min = Math.min(min, value);
    input.max = Math.max(max, value);
    input.value = value;
    shown.textContent = value.toFixed(digits).replace("-", "−");
  };
  input.addEventListener("input", () => {
    const values = [...model.get(name)];
    values[index] = Number(input.value);
    set(model, { [name]: values, picked: index });
  });
  model.on(`change:${name}`, update);
  update();
  return element("label", {}, label, input, shown);
}

function answer(model, index) {
  const most = model.get("max_tokens");
  return element(
    "div",
    {},
    element("b", { textContent: `#${index + 1}` }),
    slider(model, "rewards", index, { label: "reward", min: -1, max: 1, step: 0.05, digits: 2 }),
    slider(model, "lengths", index, { label: "tokens", min: 1, max: most, step: 1, digits: 0 }),
  );
}

function select(model, name, label, options) {
  const entries = Object.entries(options).map(([value, text]) => element("option", { value, textContent: text }));
  const input = element("select", {}, ...entries);
  const update = () => (input.value = String(model.get(name)));
  input.addEventListener("change", () => set(model, { [name]: name === "picked" ? Number(input.value) : input.value }));
  model.on(`change:${name}`, update);
  update();
  return element("label", {}, label, input);
}

function example(model, [text, title, rewards]) {
  const button = element("button", { type: "button", title, textContent: text });
  const own = () => rewards(model.get("rewards").length);
  button.addEventListener("click", () => set(model, { rewards: own() }));
  const update = () => {
    const now = model.get("rewards");
    const here = own().every((value, i) => Math.abs(value - now[i]) < 1e-9);
    button.setAttribute("aria-pressed", String(here));
  };
  model.on("change:rewards", update);
  update();
  return button;
}

function render({ model, el }) {
  const picture = element("div", { className: "ft-gr" });
  const draw = () => {
    const open = picture.querySelector("details")?.open;
    picture.innerHTML = model.get("_html"); // escaped by the view
    if (open) picture.querySelector("details").open = true;
  };
  model.on("change:_html", draw);
  draw();
  const title = model.get("_title");
  const count = model.get("rewards").length;
  const answers = spread(count, (i) => answer(model, i));
  const explained = Object.fromEntries(spread(count, (i) => [i, `#${i + 1}`]));
  const card = element(
    "section",
    { className: "ft-card", ariaLabel: title },
    element("header", {}, element("h2", { textContent: title })),
    element(
      "div",
      { className: "ft-grbar" },
      ...CHOICES.map(([name, label, options]) => select(model, name, label, options)),
      select(model, "picked", "write out answer", explained),
    ),
    element(
      "div",
      { className: "ft-grbar" },
      element("span", { textContent: "try" }),
      ...EXAMPLES.map((given) => example(model, given)),
    ),
    element("div", { className: "ft-grset" }, ...answers),
    picture,
  );
  const root = element("div", { className: "ftkit" }, card);
  // Else JupyterLab takes the keys: its shortcuts, and the arrows for moving between cells.
  root.dataset.lmSuppressShortcuts = "true";
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
}

export default { render };
