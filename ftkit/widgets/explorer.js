// What explorers share; `viewer.script` puts it in front of theirs. The kernel draws, into the
// trait `_html`, with the view function of the static page: scripts hold the controls only.

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function set(model, values) {
  model.set(values);
  model.save_changes();
}

// A slider for the number trait `name`; it stretches for a value from Python beyond its ends.
function slider(model, { name, label, title = "", min, max, step }) {
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
    set(model, { [name]: Number(input.value) });
  });
  model.on(`change:${name}`, update);
  update();
  return element("label", { title }, label, input, shown);
}

// A button that sets `values`, and `also`; pressed while the traits have these `values`.
function example(model, [text, title, values], also = {}) {
  const button = element("button", { type: "button", title, textContent: text });
  button.addEventListener("click", () => set(model, { ...values, ...also }));
  const update = () => {
    const here = Object.entries(values).every(([name, value]) => model.get(name) === value);
    button.setAttribute("aria-pressed", String(here));
  };
  Object.keys(values).forEach((name) => model.on(`change:${name}`, update));
  update();
  return button;
}

// The picture of the trait `_html`; `after` runs with every drawing.
function picture(model, className = "", after = () => {}) {
  const node = element("div", { className });
  const draw = () => {
    node.innerHTML = model.get("_html"); // escaped by the view
    after();
  };
  model.on("change:_html", draw);
  draw();
  return node;
}

// Puts one card on the page: a title, then `children`.
function explorer(el, title, ...children) {
  const header = element("header", {}, element("h2", { textContent: title }));
  const card = element("section", { className: "ft-card", ariaLabel: title }, header, ...children);
  const root = element("div", { className: "ftkit" }, card);
  // Else JupyterLab takes the keys: its shortcuts, and the arrows for moving between cells.
  root.dataset.lmSuppressShortcuts = "true";
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
}
