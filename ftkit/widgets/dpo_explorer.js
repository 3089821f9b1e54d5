const BETA = { name: "beta", label: "β", title: "Reward units a nat: higher keeps nearer to the reference", min: 0.01, max: 1, step: 0.01 };
const CHOSEN = { name: "chosen", label: "chosen", title: "How much likelier the chosen answer became, in nats", step: 0.1 };
const REJECTED = { name: "rejected", label: "rejected", title: "How much likelier the rejected answer became, in nats", step: 0.1 };
const EXAMPLES = [
  ["start", "Policy and reference are equal: loss log 2 for every pair", { chosen: 0, rejected: 0 }],
  ["as hoped", "Chosen +3, rejected −3: lead 6", { chosen: 3, rejected: -3 }],
  ["both fall", "Chosen −4, rejected −10: lead 6, the same loss", { chosen: -4, rejected: -10 }],
  ["both rise", "Chosen +10, rejected +4: lead 6, the same loss", { chosen: 10, rejected: 4 }],
  ["the wrong way", "Rejected has become likelier than chosen", { chosen: -4, rejected: 4 }],
];

// Steps through the real pairs with the arrow keys; empty where none is chosen.
function pairs(model) {
  const count = model.get("_count");
  const input = element("input", { type: "number", min: 0, max: count, step: 1, placeholder: "–" });
  const update = () => (input.value = model.get("pair") || "");
  input.addEventListener("input", () => {
    set(model, { pair: Math.min(Math.max(Math.round(Number(input.value)), 0), count) });
  });
  model.on("change:pair", update);
  update();
  return element("label", { title: "Step through the real pairs" }, "pair", input, `of ${count}`);
}

function render({ model, el }) {
  const [min, max] = [-model.get("_range"), model.get("_range")];
  const controls = [BETA, { ...CHOSEN, min, max }, { ...REJECTED, min, max }].map((options) => slider(model, options));
  if (model.get("_count")) controls.push(pairs(model));
  const drawn = picture(model, "ft-dpo ft-dpolive");
  drawn.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-pair]");
    if (!mark) return;
    set(model, { pair: Number(mark.dataset.pair) });
  });
  explorer(
    el,
    model.get("_title"),
    element("div", { className: "ft-dpobar" }, ...controls),
    element("div", { className: "ft-dpobar" }, element("span", { textContent: "try" }), ...EXAMPLES.map((given) => example(model, given, { pair: 0 }))),
    drawn,
  );
}

export default { render };
