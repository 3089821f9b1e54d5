const SLIDERS = [
  { name: "lam", label: "λ", min: 0, max: 1, step: 0.05, title: "How far a surprise travels back" },
  { name: "gamma", label: "γ", min: 0, max: 1, step: 0.05, title: "Discount a token" },
];
const EXAMPLES = [
  ["TD", "λ = 0: the next step alone", { lam: 0 }],
  ["GAE", "λ = 0.95, the usual choice", { lam: 0.95 }],
  ["Monte Carlo", "λ = 1: everything that came", { lam: 1 }],
];
const PACE_MS = 1200;

// Buttons that move the recursion; the first token is its end.
function walk(model) {
  const last = () => model.get("_count") - 1;
  const move = (at) => set(model, { at: Math.max(0, Math.min(last(), at)) });
  let clock = null;
  const stop = () => {
    clearInterval(clock);
    clock = null;
    play.textContent = "▶ play";
    play.setAttribute("aria-pressed", "false");
  };
  const start = () => {
    if (model.get("at") === 0) move(last());
    clock = setInterval(() => (model.get("at") === 0 ? stop() : move(model.get("at") - 1)), PACE_MS);
    play.textContent = "⏸ pause";
    play.setAttribute("aria-pressed", "true");
  };
  const button = (text, title, act) => {
    const node = element("button", { type: "button", title, textContent: text });
    node.addEventListener("click", act);
    return node;
  };
  const play = button("▶ play", "A token a step, from the last to the first", () => (clock ? stop() : start()));
  const back = button("← earlier token", "One step of the recursion", () => { stop(); move(model.get("at") - 1); });
  const forth = button("later token →", "Undo one step", () => { stop(); move(model.get("at") + 1); });
  const again = button("⟲ from the end", "Back to the last token", () => { stop(); move(last()); });
  const update = () => {
    back.disabled = model.get("at") === 0;
    forth.disabled = model.get("at") === last();
  };
  model.on("change:at", update);
  update();
  return { buttons: [play, back, forth, again], stop };
}

function render({ model, el }) {
  const sliders = SLIDERS.map((options) => slider(model, options));
  const examples = EXAMPLES.map((given) => example(model, given));
  const { buttons, stop } = walk(model);
  explorer(
    el,
    model.get("_title"),
    element("div", { className: "ft-gaebar" }, ...buttons),
    element("div", { className: "ft-gaebar" }, ...sliders, element("span", { textContent: "try" }), ...examples),
    picture(model, "ft-gae"),
  );
  return stop;
}

export default { render };
