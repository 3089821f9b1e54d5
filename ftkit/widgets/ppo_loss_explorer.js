// Controls only: the kernel draws, with the view function of the static page.

const SLIDERS = [
  { name: "ratio", label: "ratio r", min: 0, max: 2, step: 0.01, title: "How much likelier the token is now than when it was sampled" },
  { name: "advantage", label: "advantage A", min: -3, max: 3, step: 0.1, title: "How much better than expected the token was" },
  { name: "clip_range", label: "ε", min: 0.05, max: 0.5, step: 0.05, title: "How far a round may move a token" },
];
const EXAMPLES = [
  ["first update", "Ratio 1: sampler and policy are still the same", { ratio: 1, advantage: 1 }],
  ["good, raised enough", "Clipped: gradient 0", { ratio: 1.4, advantage: 1 }],
  ["good, but fell", "Full gradient: the minimum takes the unclipped side", { ratio: 0.6, advantage: 1 }],
  ["bad, lowered enough", "Clipped: gradient 0", { ratio: 0.6, advantage: -1 }],
  ["bad, but rose", "Full gradient, however far it went", { ratio: 1.7, advantage: -1 }],
];

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function slider(model, { name, label, title, min, max, step }) {
  const input = element("input", { type: "range", min, max, step });
  const shown = element("output");
  const update = () => {
    const value = Number(model.get(name));
    input.min = Math.min(min, value);
    input.max = Math.max(max, value);
    input.value = value;
    shown.textContent = value.toFixed(2).replace("-", "−");
  };
  input.addEventListener("input", () => {
    model.set(name, Number(input.value));
    model.save_changes();
  });
  model.on(`change:${name}`, update);
  update();
  return element("label", { title }, label, input, shown);
}

function example(model, [text, title, values]) {
  const button = element("button", { type: "button", title, textContent: text });
  button.addEventListener("click", () => {
    model.set(values);
    model.save_changes();
  });
  const update = () => {
    const here = Object.entries(values).every(([name, value]) => model.get(name) === value);
    button.setAttribute("aria-pressed", String(here));
  };
  Object.keys(values).forEach((name) => model.on(`change:${name}`, update));
  update();
  return button;
}

function render({ model, el }) {
  const picture = element("div", { className: "ft-pl" });
  const draw = () => (picture.innerHTML = model.get("_html")); // escaped by the view
  model.on("change:_html", draw);
  draw();
  const title = model.get("_title");
  const sliders = SLIDERS.map((options) => slider(model, options));
  const examples = EXAMPLES.map((given) => example(model, given));
  const card = element(
    "section",
    { className: "ft-card", ariaLabel: title },
    element("header", {}, element("h2", { textContent: title })),
    element("div", { className: "ft-plbar" }, ...sliders),
    element("div", { className: "ft-plbar" }, element("span", { textContent: "try" }), ...examples),
    picture,
  );
  const root = element("div", { className: "ftkit" }, card);
  // Else JupyterLab takes the keys: its shortcuts, and the arrows for moving between cells.
  root.dataset.lmSuppressShortcuts = "true";
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
}

export default { render };
