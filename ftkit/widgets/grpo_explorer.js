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

// A slider for one answer's entry of the list trait `name`.
function entry(model, name, index, { label, min, max, step, digits }) {
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
    entry(model, "rewards", index, { label: "reward", min: -1, max: 1, step: 0.05, digits: 2 }),
    entry(model, "lengths", index, { label: "tokens", min: 1, max: most, step: 1, digits: 0 }),
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

// Like `example`, for rewards that depend on how many answers there are.
function scored(model, [text, title, rewards]) {
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
  let open = false;
  const drawn = picture(model, "ft-gr", () => {
    const details = el.querySelector("details");
    if (details) details.open = open; // as the reader left it
  });
  drawn.addEventListener("toggle", (event) => (open = event.target.open), true);
  const count = model.get("rewards").length;
  const explained = Object.fromEntries(spread(count, (i) => [i, `#${i + 1}`]));
  const bar = (className, ...children) => element("div", { className }, ...children);
  explorer(
    el,
    model.get("_title"),
    bar(
      "ft-grbar",
      ...CHOICES.map(([name, label, options]) => select(model, name, label, options)),
      select(model, "picked", "write out answer", explained),
    ),
    bar("ft-grbar", element("span", { textContent: "try" }), ...EXAMPLES.map((given) => scored(model, given))),
    bar("ft-grset", ...spread(count, (i) => answer(model, i))),
    drawn,
  );
}

export default { render };
