const STAGES = { pretrain: "pre-training", sft: "SFT", reward: "reward model", dpo: "DPO", ppo: "PPO", grpo: "GRPO", generate: "generation only" };
const SELECTS = [
  ["stage", "stage", STAGES],
  ["method", "method", { full: "full fine-tuning", lora: "LoRA" }],
  ["weights", "weights", { float32: "float32", bfloat16: "bfloat16", int8: "int8", nf4: "NF4" }],
  ["compute", "compute", { float32: "float32", bfloat16: "bfloat16" }],
  ["optimizer", "optimizer", { adamw: "AdamW", adamw_8bit: "8-bit AdamW", sgd: "SGD" }],
  ["head", "logits", { whole: "whole", fused: "in tiles" }],
  ["roles", "models", { shared: "one base + adapters", copies: "full copies" }],
];
const SIZES = [
  ["batch", "rows a pass", 1],
  ["accumulation", "passes a step", 1],
  ["length", "tokens a row", 64],
  ["new_tokens", "of these sampled", 16],
  ["lora_r", "LoRA rank", 4],
];
const SAMPLING = ["ppo", "grpo", "generate"];
const SEVERAL = ["ppo", "dpo", "grpo"];
// Which controls mean nothing now.
const IDLE = {
  method: (m) => m.get("stage") === "generate",
  optimizer: (m) => m.get("stage") === "generate",
  head: (m) => ["generate", "reward"].includes(m.get("stage")),
  checkpointing: (m) => m.get("stage") === "generate",
  accumulation: (m) => m.get("stage") === "generate",
  roles: (m) => !SEVERAL.includes(m.get("stage")) || m.get("method") === "full",
  new_tokens: (m) => !SAMPLING.includes(m.get("stage")),
  lora_r: (m) => m.get("method") === "full" || m.get("stage") === "generate",
};
const EXAMPLES = [
  ["QLoRA on an 8B model", "", { model: "llama-3.1-8b", stage: "sft", method: "lora", weights: "nf4", checkpointing: false, accumulation: 1, batch: 8, length: 512 }],
  ["the same, in full", "", { model: "llama-3.1-8b", stage: "sft", method: "full", weights: "bfloat16", checkpointing: false, accumulation: 1, batch: 8, length: 512 }],
  ["PPO with four copies", "", { model: "llama-3.1-8b", stage: "ppo", method: "full", weights: "bfloat16", roles: "copies", batch: 8, length: 512, new_tokens: 256 }],
  ["PPO on one 4-bit base", "", { model: "llama-3.1-8b", stage: "ppo", method: "lora", weights: "nf4", roles: "shared", batch: 8, length: 512, new_tokens: 256 }],
  ["70B, 4 bits", "", { model: "llama-3.1-70b", stage: "sft", method: "lora", weights: "nf4", checkpointing: true, batch: 1, length: 512 }],
];

function idle(model, name, label) {
  const update = () => (label.style.display = IDLE[name] && IDLE[name](model) ? "none" : "");
  ["stage", "method"].forEach((other) => model.on(`change:${other}`, update));
  update();
  return label;
}

function select(model, name, label, options) {
  const entries = Object.entries(options).map(([value, text]) => element("option", { value, textContent: text }));
  const input = element("select", {}, ...entries);
  const update = () => (input.value = model.get(name));
  input.addEventListener("change", () => set(model, { [name]: input.value }));
  model.on(`change:${name}`, update);
  update();
  return idle(model, name, element("label", {}, label, input));
}

function size(model, name, label, step) {
  const input = element("input", { type: "number", min: 1, step: 1 });
  const update = () => (input.value = model.get(name));
  input.addEventListener("change", () => {
    const value = Math.round(Number(input.value));
    if (value >= 1) set(model, { [name]: value });
    update();
  });
  input.addEventListener("keydown", (event) => {
    const way = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!way) return;
    event.preventDefault(); // the native step is 1; rows of tokens go in larger ones
    set(model, { [name]: Math.max(1, model.get(name) + way * step) });
  });
  model.on(`change:${name}`, update);
  update();
  return idle(model, name, element("label", {}, label, input));
}

function check(model, name, label) {
  const input = element("input", { type: "checkbox" });
  const update = () => (input.checked = model.get(name));
  input.addEventListener("change", () => set(model, { [name]: input.checked }));
  model.on(`change:${name}`, update);
  update();
  return idle(model, name, element("label", {}, input, label));
}

// The picture, with its table folded or not as the reader left it.
function folding(model) {
  let node = null;
  let open = true;
  node = picture(model, "ft-mp", () => {
    const details = node?.querySelector("details");
    if (details) details.open = open;
  });
  node.addEventListener("toggle", (event) => (open = event.target.open), true);
  return node;
}

function render({ model, el }) {
  const models = Object.fromEntries(model.get("_models").map((name) => [name, name]));
  const bar = (...children) => element("div", { className: "ft-mpbar" }, ...children);
  explorer(
    el,
    model.get("_title"),
    bar(element("span", { textContent: "try" }), ...EXAMPLES.map((given) => example(model, given))),
    bar(select(model, "model", "model", models), ...SELECTS.map((given) => select(model, ...given))),
    bar(...SIZES.map((given) => size(model, ...given)), check(model, "checkpointing", "checkpointing")),
    folding(model),
  );
}

export default { render };
