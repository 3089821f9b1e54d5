// Controls only: the kernel draws, with the view function of the static page.

const CHOICES = [
  ["margin", "margin", { 0: "none", 0.5: "0.5", 1: "1", 2: "2" }],
  ["centering", "centring", { 0: "none", 0.01: "0.01 · sum²", 0.1: "0.1 · sum²" }],
];

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function slider(model, name, label, title) {
  const range = model.get("_range");
  const input = element("input", { type: "range", min: -range, max: range, step: 0.05 });
  const shown = element("output");
  const update = () => {
    input.value = model.get(name);
    shown.textContent = Number(model.get(name)).toFixed(2).replace("-", "−");
  };
  input.addEventListener("input", () => {
    model.set(name, Number(input.value));
    model.save_changes();
  });
  model.on(`change:${name}`, update);
  update();
  return element("label", { title }, label, input, shown);
}

function select(model, name, label, options) {
  const entries = Object.entries(options).sort((a, b) => a[0] - b[0]);
  const own = model.get(name);
  if (!entries.some(([value]) => Number(value) === own)) entries.push([own, String(own)]);
  const input = element("select", {}, ...entries.map(([value, text]) => element("option", { value, textContent: text })));
  const update = () => (input.value = String(model.get(name)));
  input.addEventListener("change", () => {
    model.set(name, Number(input.value));
    model.save_changes();
  });
  model.on(`change:${name}`, update);
  update();
  return element("label", {}, label, input);
}

function render({ model, el }) {
  const picture = element("div", { className: "ft-rl" });
  const level = slider(model, "level", "mean score", "Mean of the two scores: only centring looks at it");
  const controls = element(
    "div",
    { className: "ft-rlbar" },
    slider(model, "gap", "chosen − rejected", "Move along the curve"),
    ...CHOICES.map(([name, label, options]) => select(model, name, label, options)),
    level,
  );
  const draw = () => {
    picture.innerHTML = model.get("_html"); // escaped by the view
    level.style.visibility = model.get("centering") > 0 ? "visible" : "hidden";
  };
  model.on("change:_html", draw);
  draw();
  const card = element(
    "section",
    { className: "ft-card", ariaLabel: "Reward loss explorer" },
    element("header", {}, element("h2", { textContent: "Reward loss: −log σ(chosen − rejected)" })),
    controls,
    picture,
  );
  const root = element("div", { className: "ftkit" }, card);
  // Else JupyterLab takes the keys: its shortcuts, and the arrows for moving between cells.
  root.dataset.lmSuppressShortcuts = "true";
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
}

export default { render };
