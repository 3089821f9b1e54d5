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

function render({ model, el }) {
  const sliders = SLIDERS.map((options) => slider(model, options));
  const examples = EXAMPLES.map((given) => example(model, given));
  explorer(
    el,
    model.get("_title"),
    element("div", { className: "ft-plbar" }, ...sliders),
    element("div", { className: "ft-plbar" }, element("span", { textContent: "try" }), ...examples),
    picture(model, "ft-pl"),
  );
}

export default { render };
