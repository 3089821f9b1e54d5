// Controls of the chat inspector. The kernel draws the tokens: its `_view.html` is escaped there
// and is the only thing that goes in as HTML; everything else is set as text.

const TYPING_MS = 250; // pause in typing after which the kernel recomputes
const IDLE_MS = 600; // pause after which losses are asked for
const SLOW_MS = 10000; // then say that the kernel may be busy or gone
const ROLES = ["system", "user", "assistant", "tool"];
const SYSTEM = ["system", "developer"];

function h(tag, props = {}, ...children) {
  const { dataset, aria = {}, ...rest } = props;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(aria)) node.setAttribute(`aria-${name}`, value);
  node.append(...children);
  return node;
}

// What the user sees and what the kernel knows: one numbered edit at a time.
function exchange(model, onState) {
  let typing, idle, slow;
  const expect = () => {
    clearTimeout(idle);
    clearTimeout(slow);
    onState("computing…");
    slow = setTimeout(() => onState("computing… (is the kernel busy?)"), SLOW_MS);
  };
  const send = (changes) => {
    clearTimeout(typing);
    typing = undefined;
    model.set({ ...changes, _edit: model.get("_edit") + 1 });
    model.save_changes();
    expect();
  };
  return {
    send,
    sendSoon(changes) {
      expect();
      clearTimeout(typing);
      typing = setTimeout(() => send(changes()), TYPING_MS);
    },
    // True when `view` answers the latest edit.
    settle(view) {
      if (typing !== undefined || view.edit !== model.get("_edit")) return false;
      clearTimeout(slow);
      clearTimeout(idle);
      onState("");
      if (view.unscored) {
        idle = setTimeout(() => {
          onState("computing losses…", false);
          model.send({ score: view.edit });
        }, IDLE_MS);
      }
      return true;
    },
    stop: () => [typing, idle, slow].forEach(clearTimeout),
  };
}

function select(label, options, value, onChange) {
  const box = h("select", {}, ...options);
  box.value = value;
  box.onchange = () => onChange(box.value);
  return { box, node: h("label", {}, `${label} `, box) };
}

const option = (value, text = value) => h("option", { value, textContent: text });

function controls(model, { send, sendSoon }, editor) {
  const { masks, templates } = model.get("_choices");
  const families = () => {
    const group = h("optgroup", { label: "families shipped with TRL" });
    group.append(...templates.map((name) => option(name)));
    return group;
  };
  const own = () => option("own", "own (this tokenizer's)");
  const picks = {
    mask: select("mask", Object.entries(masks).map(([name, what]) => option(name, `${name}: ${what}`)), "", (mask) => send({ mask })),
    template: select("template", [own(), families()], "", (template) => send({ template })),
    compare: select("compare with", [option("", "–"), own(), families()], "", (compare) => send({ compare })),
  };
  const opener = h("input", { size: 22, placeholder: "its role header", spellcheck: false });
  opener.oninput = () => sendSoon(() => ({ response_template: opener.value.replaceAll("\\n", "\n") }));
  const openerLabel = h("label", { title: "Text that opens the answer; write \\n for a newline" }, "response template ", opener);

  const system = h("button", { type: "button", textContent: "system" });
  system.onclick = () => (editor.hasSystem() ? send({ system: !model.get("system") }) : editor.addSystem());
  const prompt = h("button", { type: "button", textContent: "generation prompt" });
  prompt.onclick = () => send({ generation_prompt: !model.get("generation_prompt") });

  const sync = () => {
    for (const [name, { box }] of Object.entries(picks)) box.value = model.get(name);
    openerLabel.hidden = model.get("mask") !== "completion";
    if (document.activeElement !== opener) opener.value = model.get("response_template").replaceAll("\n", "\\n");
    system.setAttribute("aria-pressed", model.get("system") && editor.hasSystem());
    system.title = editor.hasSystem() ? "Render the system message or leave it out" : "Add a system message";
    prompt.setAttribute("aria-pressed", model.get("generation_prompt"));
    prompt.title = "Append the open assistant header, as at inference";
  };
  return { sync, nodes: [picks.mask.node, openerLabel, picks.template.node, picks.compare.node, system, prompt] };
}

function messageEditor(model, { send, sendSoon }) {
  const list = h("ol", { className: "ft-msgs" });
  const add = h("button", { type: "button", textContent: "+ add message" });
  const node = h("div", { className: "ft-edit", role: "group", aria: { label: "Messages" } }, list, add);
  let draft = [];

  const copy = () => ({ messages: structuredClone(draft) });
  const change = (focus) => {
    build();
    send(copy());
    list.querySelector(focus)?.focus();
  };
  const move = (i, by) => {
    draft.splice(i + by, 0, ...draft.splice(i, 1));
    change(`li:nth-child(${i + by + 1}) .${by < 0 ? "up" : "down"}:enabled, li:nth-child(${i + by + 1}) textarea`);
  };
  const remove = (i) => {
    draft.splice(i, 1);
    change(`li:nth-child(${Math.max(i, 1)}) textarea`);
  };
  add.onclick = () => {
    const last = draft.at(-1)?.role;
    draft.push({ role: last === "user" ? "assistant" : "user", content: "" });
    change("li:last-child textarea");
  };

  const text = (message, name) => {
    const plain = typeof message.content === "string";
    const value = plain ? message.content : JSON.stringify(message.content ?? null);
    const area = h("textarea", { value, rows: 1, dir: "auto", readOnly: !plain, aria: { label: `${name}, text` } });
    if (!plain) area.title = "Structured content: change it in Python";
    area.oninput = () => {
      message.content = area.value;
      sendSoon(copy);
    };
    return area;
  };
  const role = (message, name) => {
    const known = ROLES.includes(message.role) ? ROLES : [message.role, ...ROLES];
    const box = h("select", { aria: { label: `${name}, role` } }, ...known.map((r) => option(r)));
    box.value = message.role;
    box.onchange = () => {
      message.role = box.value;
      paint();
      send(copy());
    };
    return box;
  };
  const button = (className, sign, label, disabled, onclick) =>
    h("button", { type: "button", className, textContent: sign, title: label, disabled, onclick, aria: { label } });
  const row = (message, i) => {
    const name = `message ${i}`;
    return h("li", {}, h("span", { className: "no" }), role(message, name), text(message, name),
      h("span", { className: "acts" },
        button("up", "↑", `Move ${name} up`, i === 0, () => move(i, -1)),
        button("down", "↓", `Move ${name} down`, i === draft.length - 1, () => move(i, 1)),
        button("del", "✕", `Remove ${name}`, false, () => remove(i))));
  };
  // Hue by role; numbers as the strip counts turns, so without messages that are left out.
  const paint = () => {
    let turn = 0;
    draft.forEach((message, i) => {
      const hidden = SYSTEM.includes(message.role) && !model.get("system");
      const row = list.children[i];
      row.className = hidden ? "system off" : ROLES.includes(message.role) ? message.role : "";
      row.querySelector(".no").textContent = hidden ? "–" : turn++;
    });
  };
  const build = () => {
    list.replaceChildren(...draft.map(row));
    paint();
  };
  const sync = () => {
    const told = model.get("messages");
    if (JSON.stringify(told) !== JSON.stringify(draft)) {
      draft = structuredClone(told);
      build();
    }
    paint();
  };
  return {
    node, sync,
    hasSystem: () => draft.some((m) => SYSTEM.includes(m.role)),
    addSystem() {
      draft.unshift({ role: "system", content: "You are a helpful assistant." });
      model.set("system", true);
      change("li textarea");
    },
  };
}

// The token at the same place one line up or down: the nearest by x on the next other line.
function vertical(tokens, from, by) {
  const x = tokens[from].getBoundingClientRect().left;
  let line, best = from, gap = Infinity;
  for (let i = from + by; i >= 0 && i < tokens.length; i += by) {
    const box = tokens[i].getBoundingClientRect();
    if (line === undefined && Math.abs(box.bottom - tokens[from].getBoundingClientRect().bottom) < 9) continue;
    line ??= box.bottom;
    if (Math.abs(box.bottom - line) >= 9) break;
    if (Math.abs(box.left - x) < gap) [best, gap] = [i, Math.abs(box.left - x)];
  }
  return best;
}

// Roving tabindex, arrows, Enter and Escape within one strip. `kept` outlives a redraw.
function navigate(box, kept) {
  const tokens = [...box.querySelectorAll(".ft-strip .t")];
  const detail = box.querySelector(".ft-detail");
  const hint = "Point at a token, or Tab to it: ← → ↑ ↓ move, Enter pins, Escape releases.";
  const clamp = (i) => Math.max(0, Math.min(tokens.length - 1, i));
  const stop = (i) => {
    tokens[kept.at ?? 0]?.setAttribute("tabindex", -1);
    kept.at = clamp(i);
    tokens[kept.at]?.setAttribute("tabindex", 0);
  };
  const name = (token) => token.getAttribute("aria-label").split(" · span ")[0];
  const pin = (i) => {
    box.querySelector(".t.pin")?.classList.remove("pin");
    const token = tokens[i];
    kept.pin = token && i;
    kept.what = token && name(token);
    token?.classList.add("pin");
    detail.classList.toggle("pinned", Boolean(token));
    detail.textContent = token ? `pinned ${token.getAttribute("aria-label")}` : hint;
  };
  const steps = {
    ArrowRight: (i) => i + 1,
    ArrowLeft: (i) => i - 1,
    ArrowDown: (i) => vertical(tokens, i, 1),
    ArrowUp: (i) => vertical(tokens, i, -1),
    Home: () => 0,
    End: () => tokens.length - 1,
  };
  box.onkeydown = (event) => {
    const i = tokens.indexOf(event.target);
    if (i < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) {
      stop(steps[event.key](i));
      tokens[kept.at].focus();
    } else if (event.key === "Enter") pin(i);
    else if (event.key === "Escape") pin(undefined);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  box.addEventListener("focusin", (event) => tokens.includes(event.target) && stop(tokens.indexOf(event.target)));
  box.addEventListener("click", (event) => {
    const i = tokens.indexOf(event.target.closest(".t"));
    if (i >= 0) pin(i === kept.pin ? undefined : i);
  });
  detail.setAttribute("aria-live", "polite");
  tokens.forEach((token) => token.setAttribute("tabindex", -1));
  stop(kept.at ?? 0);
  const same = kept.pin < tokens.length && name(tokens[kept.pin]) === kept.what;
  pin(same ? kept.pin : undefined);
}

// Put new HTML in and keep what the reader had set: switches, pins, place in the strip.
function redraw(out, html, kept) {
  const scrolls = [...out.querySelectorAll(".ft-strip")].map((s) => s.scrollTop);
  out.innerHTML = html;
  for (const name of kept.switches) {
    const box = out.querySelector(`input.${name}`);
    if (box) box.checked = true;
  }
  out.querySelectorAll(".ft-box").forEach((box, i) => {
    navigate(box, (kept.strips[i] ??= {}));
    box.querySelector(".ft-strip").scrollTop = scrolls[i] ?? 0;
  });
}

function render({ model, el }) {
  const busy = h("span", { className: "ft-busy", role: "status" });
  const said = h("div", { className: "ft-vh", aria: { live: "polite" } });
  const out = h("div", { className: "ft-out" });
  const kept = { switches: new Set(), strips: [] };
  const onState = (text, stale = Boolean(text)) => {
    busy.textContent = text;
    out.classList.toggle("stale", stale);
  };
  const link = exchange(model, onState);
  const editor = messageEditor(model, link);
  const bar = controls(model, link, editor);

  const sync = () => {
    editor.sync();
    bar.sync();
    work.classList.toggle("pair", Boolean(model.get("compare")));
  };
  const show = () => {
    const view = model.get("_view");
    if (!link.settle(view)) return;
    redraw(out, view.html, kept);
    said.textContent = view.said;
  };
  out.addEventListener("change", ({ target }) =>
    kept.switches[target.checked ? "add" : "delete"](target.className));

  const work = h("div", { className: "ft-work" }, editor.node, out);
  const head = h("header", {}, h("h2", {}, "Chat inspector ", busy), h("div", { className: "ft-ctl" }, ...bar.nodes));
  const card = h("section", { className: "ft-card", aria: { label: "Chat inspector" } }, head, work, said);
  // JupyterLab would take arrows, Enter and letters for notebook commands.
  el.append(h("div", { className: "ftkit ft-ci", dataset: { lmSuppressShortcuts: "true" } }, card));

  const inputs = ["messages", "mask", "response_template", "template", "compare", "system", "generation_prompt"];
  const names = inputs.map((name) => `change:${name}`).join(" ");
  model.on(names, sync);
  model.on("change:_view", show);
  sync();
  show();
  return () => {
    link.stop();
    model.off(names, sync);
    model.off("change:_view", show);
  };
}

export default { render };
