const GAP = { name: "gap", label: "chosen − rejected", title: "Move along the curve", step: 0.05 };
const LEVEL = { name: "level", label: "mean score", title: "Mean of the two scores: only centring looks at it", step: 0.05 };
const CHOICES = [
  ["margin", "margin", { 0: "none", 0.5: "0.5", 1: "1", 2: "2" }],
  ["centering", "centring", { 0: "none", 0.01: "0.01 · sum²", 0.1: "0.1 · sum²" }],
];

function select(model, name, label, options) {
  const entries = Object.entries(options).sort((a, b) => a[0] - b[0]);
  const own = model.get(name);
  if (!entries.some(([value]) => Number(value) === own)) entries.push([own, String(own)]);
  const input = element("select", {}, ...entries.map(([value, text]) => element("option", { value, textContent: text })));
  const update = () => (input.value = String(model.get(name)));
  input.addEventListener("change", () => set(model, { [name]: Number(input.value) }));
  model.on(`change:${name}`, update);
  update();
  return element("label", {}, label, input);
}

function render({ model, el }) {
  const [min, max] = [-model.get("_range"), model.get("_range")];
  const level = slider(model, { ...LEVEL, min, max });
  const choices = CHOICES.map(([name, label, options]) => select(model, name, label, options));
  const fade = () => (level.style.visibility = model.get("centering") > 0 ? "visible" : "hidden");
  explorer(
    el,
    "Reward loss: −log σ(chosen − rejected)",
    element("div", { className: "ft-rlbar" }, slider(model, { ...GAP, min, max }), ...choices, level),
    picture(model, "ft-rl", fade),
  );
}

export default { render };
