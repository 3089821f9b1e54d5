const SLIDERS = [
  { name: "alpha", label: "α", stops: [0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500], title: "Noise scale: 5, 10 and 15 are the paper's" },
  { name: "length", label: "tokens of the row", stops: [1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048], title: "Real tokens: question and answer" },
  { name: "padding", label: "+ padding or neighbours", stops: [0, 16, 32, 64, 128, 256, 512, 992, 2048, 4096], title: "What the batch adds to the row: the hook counts it, too" },
];
const EXAMPLES = [
  ["as in the paper", "α = 5, 64 tokens, no padding", { alpha: 5, length: 64, padding: 0 }],
  ["short row, long batch", "32 tokens padded to 256", { alpha: 5, length: 32, padding: 224 }],
  ["packed to 1,024", "The same 32 tokens among their neighbours", { alpha: 5, length: 32, padding: 992 }],
  ["noise as long as the way to the next word", "α = 20, 64 tokens", { alpha: 20, length: 64, padding: 0 }],
  ["half of the words turn", "α = 220, 64 tokens", { alpha: 220, length: 64, padding: 0 }],
];

// A slider over stops that grow; a value set from Python that is no stop shows at the next one.
function steps(model, { name, label, title, stops }) {
  const input = element("input", { type: "range", min: 0, max: stops.length - 1, step: 1 });
  const shown = element("output");
  const update = () => {
    const value = Number(model.get(name));
    const at = stops.findIndex((stop) => stop >= value);
    input.value = at < 0 ? stops.length - 1 : at;
    shown.textContent = value.toLocaleString("en");
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  input.addEventListener("input", () => {
    set(model, { [name]: stops[Number(input.value)] });
  });
  model.on(`change:${name}`, update);
  update();
  return element("label", { title }, label, input, shown);
}

function render({ model, el }) {
  let open = [];
  const shown = picture(model, "ft-nf", () => {
    const tables = [...el.querySelectorAll("details")];
    tables.forEach((node, i) => (node.open = open[i] ?? node.open)); // as the reader left them
  });
  shown.addEventListener("toggle", () => (open = [...shown.querySelectorAll("details")].map((d) => d.open)), true);
  const sliders = SLIDERS.map((options) => steps(model, options));
  const examples = EXAMPLES.map((given) => example(model, given));
  explorer(
    el,
    model.get("_title"),
    element("div", { className: "ft-nfbar" }, ...sliders),
    element("div", { className: "ft-nfbar" }, element("span", { textContent: "try" }), ...examples),
    shown,
  );
}

export default { render };
