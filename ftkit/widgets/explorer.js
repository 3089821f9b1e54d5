// What explorers share; `viewer.script` puts it in front of theirs. The kernel draws, into the
// trait `_html`, with the view function of the static page: scripts hold the controls only.

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
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
    model.set(name, Number(input.value));
    model.save_changes();
  });
  model.on(`change:${name}`, update);
  update();
  return element("label", { title }, label, input, shown);
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
