// Moves over the block sizes of `_sizes`, which double, so that every step counts alike.
function sizeSlider(model) {
  const input = element("input", { type: "range", min: 0, step: 1, ariaLabel: "block size" });
  const shown = element("output");
  const update = () => {
    const sizes = model.get("_sizes");
    const size = model.get("block_size");
    input.max = sizes.length - 1;
    input.value = sizes.findLastIndex((one) => one <= size);
    input.ariaValueText = shown.textContent = `${size.toLocaleString("en")} tokens`;
  };
  input.addEventListener("input", () => {
    set(model, { block_size: model.get("_sizes")[Number(input.value)] });
  });
  model.on("change:block_size change:_sizes", update);
  update();
  return element("label", { title: "How many tokens a block holds" }, "block size", input, shown);
}

function choose(model, block) {
  set(model, { block });
}

function blockSlider(model) {
  const input = element("input", { type: "range", min: 0, step: 1, ariaLabel: "block shown" });
  const shown = element("output");
  const update = () => {
    input.max = model.get("_blocks") - 1;
    input.value = model.get("block");
    input.ariaValueText = shown.textContent = `${model.get("block")} of ${model.get("_blocks")}`;
  };
  input.addEventListener("input", () => choose(model, Number(input.value)));
  model.on("change:block change:_blocks", update);
  update();
  return element("label", { title: "Or click a block below" }, "block shown", input, shown);
}

function render({ model, el }) {
  const drawing = picture(model, "live");
  drawing.addEventListener("click", (event) => {
    const bar = event.target.closest("[data-block]");
    if (bar) choose(model, Number(bar.dataset.block));
  });
  explorer(
    el,
    model.get("_title"),
    element("div", { className: "ft-pkbar" }, sizeSlider(model), blockSlider(model)),
    element("div", { className: "ft-pk" }, drawing),
  );
}

export default { render };
