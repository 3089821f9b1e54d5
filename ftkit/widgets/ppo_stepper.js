// The PPO stepper. All data came once, as JSON; nothing here asks a kernel, so the same module also
// runs in a page of its own (`standalone`, below). Recorded text goes in as text, never as HTML.

const TOLERANCE = 2e-4;
const BAR_PX = 30;
const SVG = "http://www.w3.org/2000/svg";
const SHARED = ["preset", "iteration", "row", "phase", "step"];

// --- small tools ---------------------------------------------------------------------------------

function fill(node, props, children) {
  const { dataset, aria = {}, style = {}, ...rest } = props;
  Object.assign(node, rest);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(style)) node.style.setProperty(name, value);
  for (const [name, value] of Object.entries(aria)) node.setAttribute(`aria-${name}`, value);
  node.append(...children);
  return node;
}

const h = (tag, props = {}, ...children) => fill(document.createElement(tag), props, children);

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const sub = (text) => h("sub", { textContent: text });
const bold = (text) => h("b", { textContent: text });
const words = (...parts) => h("span", {}, ...parts);
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const sum = (values) => values.reduce((a, b) => a + b, 0);

function special(x) {
  return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "−∞";
}

function signed(x, digits = 3) {
  if (!Number.isFinite(x)) return special(x);
  const size = Math.abs(x).toFixed(digits);
  return (x < 0 && Number(size) !== 0 ? "−" : "+") + size;
}

const plain = (x, digits = 4) => signed(x, digits).replace(/^\+/, "");
const inner = (x) => (plain(x).startsWith("−") ? `(${plain(x)})` : plain(x));
const exact = (x) => (x === 0 ? "0" : inner(x)); // 0 after the last token is exact, not rounded

// A few characters, as in the static picture: 0.0123, 12,300, 9.2e−6.
function short(x) {
  if (!Number.isFinite(x)) return special(x);
  const size = Math.abs(x);
  const text = size > 0 && size < 1e-3 ? x.toExponential(1).replace(".0e", "e")
    : size >= 1000 ? Math.round(x).toLocaleString("en-US") : String(Number(x.toPrecision(3)));
  return text.replaceAll("-", "−");
}

const factor = (x) => String(Number(x.toPrecision(4)));

function percent(x) {
  if (!Number.isFinite(x)) return special(x);
  return x >= 0.0995 ? `${(100 * x).toFixed(0)} %` : `${Number((100 * x).toPrecision(2))} %`;
}

// A token in one visible line, as in the static picture: · for spaces, ⏎, code points for the rest.
function token(text) {
  const shown = [...text].map((ch) => {
    if (ch === " ") return "·";
    if (ch === "\n") return "⏎";
    if (/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(ch) && ch !== "\u200c" && ch !== "\u200d") {
      return `[U+${ch.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
    }
    return ch;
  });
  return shown.join("") || "▫";
}

const quoted = (text) => h("code", { textContent: token(text) });

// --- the data ------------------------------------------------------------------------------------

const LISTS = ["old", "ref", "new", "kl", "v", "r", "rw", "a", "aw", "ret"];

// Numbers that JSON cannot hold came as text: "NaN", "Infinity".
function revive(data) {
  for (const it of data.iterations) {
    for (const name of ["beta", "mean", "std"]) if (it[name] !== null) it[name] = Number(it[name]);
    for (const row of it.rows) {
      for (const name of LISTS) if (row[name]) row[name] = row[name].map(Number);
      row.score = Number(row.score);
      row.paid = Number(row.paid);
      row.gaeReward = row.rw ?? row.r;
      row.used = row.aw ?? row.a;
    }
    for (const update of it.updates) {
      for (const name of ["policy", "value", "entropy", "cut", "kl"]) update[name] = Number(update[name]);
      for (const row of Object.keys(update.ratio)) update.ratio[row] = update.ratio[row].map(Number);
    }
  }
  return data;
}

// What is on the screen: one answer, in one phase, at one step.
function scene(data, state) {
  const at = data.iterations.reduce((best, it, i) =>
    Math.abs(it.n - state.iteration) < Math.abs(data.iterations[best].n - state.iteration) ? i : best, 0);
  const it = data.iterations[at];
  const rowAt = clamp(state.row, 0, it.rows.length - 1);
  const row = it.rows[rowAt];
  const phase = Math.max(0, PHASES.findIndex((p) => p.key === state.phase));
  const now = { data, at, it, rowAt, row, phase, size: row.tokens.length };
  now.steps = PHASES[phase].steps(now);
  now.step = clamp(state.step, 0, Math.max(0, now.steps - 1));
  now.t = PHASES[phase].token?.(now) ?? -1;
  now.update = PHASES[phase].key === "update" ? it.updates[now.step] : undefined;
  return now;
}

// --- one table, one column a token ---------------------------------------------------------------

const name = (text, index) => words(text, ...(index ? [sub(index)] : []));
const always = () => true;

// A line of numbers. `known(t)` says whether token t is computed yet, `from(t)` whether it enters.
function line(label, values, { known = always, from = () => false, show = (x) => signed(x), cls = "" } = {}) {
  return { label, cls, from, cell: (t) => (known(t) ? show(values[t], t) : undefined) };
}

function bars(label, values, known, from) {
  const finite = values.filter(Number.isFinite);
  const scale = BAR_PX / Math.max(1e-9, ...finite.map(Math.abs));
  const up = scale * Math.max(0, ...finite);
  const down = scale * Math.max(0, ...finite.map((x) => -x));
  const cell = (t) => {
    const x = known(t) ? values[t] : NaN;
    const size = Number.isFinite(x) ? Math.abs(x) * scale : 0;
    const bar = h("i", { className: x > 0 ? "up" : "down", style: { height: `${size.toFixed(0)}px` } });
    return words(h("div", { className: "ft-adv" }, bar), known(t) ? signed(values[t]) : "·");
  };
  return { label, cls: "bars", from, cell, style: { "--up": `${up.toFixed(0)}px`, "--dn": `${down.toFixed(0)}px` } };
}

function tokenTable(now, lines, { hidden = () => false, onPick }) {
  const mark = (t, from) => (t === now.t ? "cur" : from?.(t) ? "from" : "");
  const head = now.row.tokens.map((text, t) => {
    const code = quoted(text);
    code.style.visibility = hidden(t) ? "hidden" : "";
    const th = h("th", { scope: "col", className: mark(t), title: `token ${t}, id ${now.row.ids[t]}` },
      h("span", { className: "no", textContent: t }), code);
    if (t === now.t) th.setAttribute("aria-current", "true");
    return th;
  });
  const body = lines.map(({ label, cls, style, cell, from }) =>
    h("tr", { className: cls, style }, h("th", { scope: "row" }, label),
      ...now.row.tokens.map((_, t) => {
        const shown = hidden(t) ? "" : cell(t);
        return h("td", { className: `${mark(t, from)}${shown === undefined ? " todo" : ""}`.trim() }, shown ?? "·");
      })));
  const table = h("table", { className: "ft-trace" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col", textContent: "token" }), ...head)), h("tbody", {}, ...body));
  table.onclick = ({ target }) => {
    const t = (target.closest("th,td")?.cellIndex ?? 0) - 1;
    if (t >= 0) onPick(t);
  };
  return table;
}

// --- arithmetic written out ----------------------------------------------------------------------

function agree(computed, recorded, ...terms) {
  const same = close(computed, recorded, ...terms);
  return h("span", {
    className: same ? "ft-agree" : "ft-agree off",
    textContent: same ? `✓ recorded ${signed(recorded, 4)}` : `✗ recorded ${signed(recorded, 4)}: they differ`,
  });
}

const formulas = (...parts) => h("p", { className: "ft-arith ft-tally" }, ...parts);

const ESTIMATES = {
  k1: (a, b) => a - b,
  k2: (a, b) => 0.5 * (a - b) ** 2,
  k3: (a, b) => Math.exp(b - a) - 1 - (b - a),
};
const ESTIMATE_TEXT = {
  k1: (a, b) => `${plain(a)} − ${inner(b)}`,
  k2: (a, b) => `½·(${plain(a)} − ${inner(b)})²`,
  k3: (a, b) => `exp(d) − 1 − d, d = ${plain(b)} − ${inner(a)}`,
};

function klFormulas({ data, it, row, t, size }) {
  const kl = ESTIMATES[data.estimator](row.old[t], row.ref[t]);
  const last = t === size - 1;
  const reward = -it.beta * row.kl[t] + (last ? row.paid : 0);
  const definition = data.estimator === "k1" ? [" = log π", sub("old"), " − log π", sub("ref")] : [` (${data.estimator})`];
  return formulas(
    words("KL", sub(t), ...definition, ` = ${ESTIMATE_TEXT[data.estimator](row.old[t], row.ref[t])} = `, bold(signed(kl, 4)),
      agree(kl, row.kl[t], row.old[t], row.ref[t])),
    words("r", sub(t), " = −β·KL", sub(t), last ? " + score" : "", ` = −${short(it.beta)}·${inner(row.kl[t])}`,
      last ? ` + ${inner(row.paid)}` : "", " = ", bold(signed(reward, 4)),
      agree(reward, row.r[t], row.paid)));
}

// δ_t and Â_t from the recorded r, V and Â; all three zero after the last token.
function gaeNumbers({ data, row, size }, t) {
  const [value, nextValue, next] = [row.v[t], t + 1 < size ? row.v[t + 1] : 0, t + 1 < size ? row.a[t + 1] : 0];
  const delta = row.gaeReward[t] + data.gamma * nextValue - value;
  return { value, nextValue, next, delta, advantage: delta + data.gamma * data.lam * next };
}

function gaeFormulas(now) {
  const { data, row, t, size } = now;
  const { value, nextValue, next, delta, advantage } = gaeNumbers(now, t);
  const ahead = (letter) => (t + 1 < size ? [letter, sub(t + 1)] : ["0"]);
  return formulas(
    words("δ", sub(t), " = r", sub(t), " + γ·", ...ahead("V"), " − V", sub(t),
      ` = ${plain(row.gaeReward[t])} + ${factor(data.gamma)}·${exact(nextValue)} − ${inner(value)} = `, bold(signed(delta, 4))),
    words("Â", sub(t), " = δ", sub(t), " + γλ·", ...ahead("Â"),
      ` = ${plain(delta)} + ${factor(data.gamma * data.lam)}·${exact(next)} = `, bold(signed(advantage, 4)),
      agree(advantage, row.a[t], delta)),
    words("R", sub(t), " = Â", sub(t), " + V", sub(t), ` = ${plain(row.a[t])} + ${inner(value)} = `, bold(signed(row.a[t] + value, 4)),
      agree(row.a[t] + value, row.ret[t], value)));
}

function close(computed, recorded, ...terms) {
  return Object.is(computed, recorded) ||
    Math.abs(computed - recorded) <= TOLERANCE * Math.max(1, Math.abs(recorded), ...terms.map(Math.abs));
}

function whiteningFormula({ it, row }) {
  const t = 0;
  if (it.mean === null || it.std === null) return formulas(words("(Â − mean) / deviation, both over the whole batch"));
  const white = (row.a[t] - it.mean) / it.std;
  return formulas(
    words("Â′", sub(t), " = (Â", sub(t), " − mean) / deviation", ` = (${plain(row.a[t])} − ${inner(it.mean)}) / ${plain(it.std)} = `, bold(signed(white, 4)),
      agree(white, row.aw[t], row.a[t] / it.std)));
}

// --- the six phases ------------------------------------------------------------------------------

const sampled = (t) => (t === 0 ? "1 token" : `${t + 1} tokens`);
const rewards = (row, known) => [
  line(name("reward r"), row.r, { known }),
  ...(row.rw ? [line(name("reward r, whitened"), row.rw, { known })] : []),
];
const oldLine = (row) => line(name("log π", "old"), row.old);

const PHASES = [
  {
    key: "rollout", title: "Rollout", pace: 400, roles: { actor: "runs" },
    steps: ({ size }) => size,
    token: ({ step }) => step,
    hidden: ({ step }) => (t) => t > step,
    lines: ({ row }) => [
      line(name("token id"), row.ids, { show: String }),
      oldLine(row),
      line(name("probability"), row.old, { show: (x) => percent(Math.exp(x)) }),
    ],
    stats: ({ row, t, data }) => [[sampled(t), "sampled"], [signed(sum(row.old.slice(0, t + 1)), 2), "log π of the answer so far"], [short(data.temperature), "temperature"]],
    sums: ({ row, t }) => formulas(words("p", sub(t), " = exp(log π", sub("old"), `) = exp(${plain(row.old[t])}) = `, bold(percent(Math.exp(row.old[t]))))),
    say: ({ row, t, size }) => ["The actor drew ", quoted(row.tokens[t]), ` with probability ${percent(Math.exp(row.old[t]))}. `,
      ...(t < size - 1 ? ["It is appended, and the actor reads everything so far to draw the next one."]
        : ["The answer is complete. Its log-probabilities are now frozen: they are π", sub("old"), ", from which the updates will measure how far they have moved."])],
  },
  {
    key: "score", title: "Score", pace: 2600, roles: { reward: "runs" },
    steps: () => 1,
    token: ({ size }) => size - 1,
    lines: ({ row, size }) => [
      oldLine(row),
      line(name("score"), row.tokens, { show: (_, t) => (t === size - 1 ? signed(row.score) : "0") }),
      ...(row.paid === row.score ? [] : [line(name("paid"), row.tokens, { show: (_, t) => (t === size - 1 ? signed(row.paid) : "0") })]),
    ],
    stats: ({ row }) => [[signed(row.score), "score of the whole answer"], ...(row.paid === row.score ? [] : [[signed(row.paid), "paid, after penalty or clipping"]])],
    say: ({ row }) => [`One number for the whole answer, ${signed(row.score)}, read at the last real token: the only one that has seen everything. Every other token is paid nothing yet.`,
      ...(row.paid === row.score ? [] : [` Of it ${signed(row.paid)} is paid, after penalties, limits and the place where it counts.`])],
  },
  {
    key: "kl", title: "KL → reward", pace: 900, roles: { actor: "recorded", reward: "recorded", reference: "runs" },
    steps: ({ size }) => size,
    token: ({ step }) => step,
    lines: ({ row, data, step }) => [
      oldLine(row),
      line(name("log π", "ref"), row.ref),
      line(name(`KL (${data.estimator})`), row.kl, { known: (t) => t <= step }),
      line(name("reward r"), row.r, { known: (t) => t <= step }),
    ],
    stats: ({ row, it, step }) => [[signed(sum(row.kl.slice(0, step + 1))), "nats from the reference so far"], [short(it.beta), "β, score a nat"], [signed(sum(row.r.slice(0, step + 1))), "reward so far"]],
    sums: klFormulas,
    say: ({ row, it, t, size }) => {
      const ratio = Math.exp(row.old[t] - row.ref[t]);
      const far = ratio >= 1 ? `${short(ratio)} times as likely` : `only ${percent(ratio)} as likely`;
      const price = it.beta === 0 ? "which costs nothing: β is 0."
        : `so it ${row.kl[t] > 0 ? "costs" : "earns"} β·KL = ${plain(Math.abs(it.beta * row.kl[t]))}.`;
      return [quoted(row.tokens[t]), ` is ${far} under the policy as under the reference, ${price}`,
        t === size - 1 ? " Here, at the last token, what is paid of the score is added." : ""];
    },
  },
  {
    key: "values", title: "Values", pace: 2600, roles: { critic: "runs" },
    steps: () => 1,
    lines: ({ row }) => [...rewards(row, always), line(name("value V"), row.v)],
    stats: ({ row, size }) => [[signed(row.v[0]), "expected before the first token"], [signed(row.v[size - 1]), "expected before the last"], [signed(sum(row.gaeReward)), "really came"]],
    say: ({ row }) => ["In one pass the critic says, before every token, how much reward is still to come. Before ", quoted(row.tokens[0]),
      ` it expects ${signed(row.v[0])}; the rewards of the whole answer add up to ${signed(sum(row.gaeReward))}. How far it is off, token by token, is what comes next.`],
  },
  {
    key: "gae", title: "GAE", pace: 1500, roles: { critic: "recorded", reward: "recorded" },
    steps: ({ size, row }) => size + (row.aw ? 1 : 0),
    token: ({ step, size }) => size - 1 - step,
    lines: ({ row, data, t, size }) => {
      const known = (i) => i >= t;
      const next = (i) => t >= 0 && i === t + 1;
      return [
        oldLine(row),
        line(name("log π", "ref"), row.ref),
        line(name(`KL (${data.estimator})`), row.kl),
        ...rewards(row, always),
        line(name("value V"), row.v, { from: next }),
        bars(words("advantage Â", h("br"), h("small", { textContent: "← filled from the right" })), row.a, known, next),
        line(name("return R"), row.ret, { known }),
        ...(row.aw ? [line(name("Â, whitened"), row.aw, { known: () => t < 0 })] : []),
      ];
    },
    stats: ({ data, row, t, size }) => [[short(data.gamma), "γ, discount a token"], [short(data.lam), "λ, share of what follows"], [`${size - Math.max(0, t)} of ${size}`, "tokens done"]],
    sums: (now) => (now.t < 0 ? whiteningFormula(now) : gaeFormulas(now)),
    say: (now) => gaeSay(now),
  },
  {
    key: "update", title: "Update", pace: 2600, roles: { actor: "trained", critic: "trained" },
    steps: ({ it }) => it.updates.length,
    lines: (now) => updateLines(now),
    stats: ({ update, data }) => (update ? [[short(update.policy), "policy loss"], [short(update.value), "value loss"], [short(totalLoss(update, data)), "total loss"], [short(update.entropy), "entropy, nats"], [percent(update.cut), "of tokens clipped"], [short(update.kl), "nats from the old policy"]] : []),
    sums: (now) => updateFormulas(now),
    say: (now) => updateSay(now),
  },
];

function gaeSay(now) {
  const { it, row, t, size } = now;
  if (t < 0) {
    if (it.std && !row.a.every((x, i) => close((x - it.mean) / it.std, row.aw[i], x / it.std))) {
      return ["Whitening should shift and scale the advantages of the batch to mean 0 and variance 1. The recorded ones are others: mean and deviation were not taken over the real tokens alone."];
    }
    const flips = row.a.filter((x, i) => x * row.aw[i] < 0).length;
    return ["Whitening shifts and scales the advantages of the whole batch to mean 0 and variance 1. The order stays; ",
      flips ? `${flips === 1 ? "1 token" : `${flips} tokens`} of this answer changed sign: better than expected, but less so than the batch.` : "no token of this answer changed sign."];
  }
  const { advantage } = gaeNumbers(now, t);
  const verdict = advantage > 0 ? "turned out better than the critic expected" : "turned out worse than the critic expected";
  const lead = t === size - 1 ? "GAE starts at the last token: nothing follows, so V and Â after it are 0. "
    : "GAE runs backwards: each advantage is this token's surprise plus a discounted share of the next one's. ";
  return [lead, `Token ${t}, `, quoted(row.tokens[t]), `, ${verdict}.`];
}

// --- the update ----------------------------------------------------------------------------------

const ratios = ({ update, rowAt }) => update?.ratio[rowAt];
const isClipped = ({ update, rowAt }, t) => update.clipped[rowAt]?.[t] === "1";

// The token that moved most, unless the reader picked one.
function focusToken(now, wanted) {
  const list = ratios(now);
  if (!list) return -1;
  if (wanted !== undefined && wanted < list.length) return wanted;
  return list.reduce((best, r, t) => (Math.abs(Math.log(r)) > Math.abs(Math.log(list[best])) ? t : best), 0);
}

function updateLines(now) {
  const { row, it, step } = now;
  const list = ratios(now);
  const last = step === it.updates.length - 1;
  return [
    oldLine(row),
    line(name(row.aw ? "Â, whitened" : "advantage Â"), row.used),
    ...(list ? [
      line(name("ratio π / π", "old"), list, { show: (x) => plain(x, 3) }),
      line(name("gradient"), list, { show: (_, t) => (isClipped(now, t) ? h("span", { className: "cut", textContent: "✕ clipped" }) : "○ flows") }),
    ] : []),
    ...(row.new && last ? [line(words("log π", sub("new"), h("br"), h("small", { textContent: "after the last update" })), row.new)] : []),
  ];
}

function totalLoss(update, data) {
  return update.policy + data.valueCoef * update.value - data.entropyCoef * update.entropy;
}

function totalFormula({ update, data }) {
  const { valueCoef, entropyCoef } = data;
  const names = entropyCoef ? "policy + c·value − c′·entropy" : "policy + c·value";
  const bonus = entropyCoef ? ` − ${short(entropyCoef)}·${inner(update.entropy)}` : "";
  return words(`total loss = ${names} = ${plain(update.policy)} + ${short(valueCoef)}·${inner(update.value)}${bonus} = `, bold(signed(totalLoss(update, data), 4)),
    "; value is half the mean squared error of V, clipped");
}

function updateFormulas(now) {
  const { row, data, t } = now;
  const list = ratios(now);
  if (!now.update) return undefined;
  if (!list || t < 0) return formulas(totalFormula(now));
  const [ratio, used, low, high] = [list[t], row.used[t], 1 - data.eps, 1 + data.eps];
  const held = clamp(ratio, low, high);
  const cut = isClipped(now, t);
  return formulas(
    words("clip(ratio", sub(t), `, ${short(low)}, ${short(high)}) = clip(${plain(ratio)}, …) = `, bold(plain(held))),
    words("min(ratio·Â, clip·Â)", ` = min(${plain(ratio)}·${inner(used)}, ${plain(held)}·${inner(used)}) = `, bold(signed(Math.min(ratio * used, held * used), 4)),
      h("span", { className: cut ? "ft-agree off" : "ft-agree", textContent: cut ? "✕ clipped: no gradient" : "○ the gradient flows" })),
    totalFormula(now));
}

function updateSay(now) {
  const { it, update, row, rowAt, step } = now;
  if (!update) return ["No update was recorded for this iteration."];
  const list = ratios(now);
  const where = `Epoch ${update.e}, minibatch ${update.m}. `;
  if (!list) return [where, `Sample #${rowAt} was not in this minibatch; step on to one that held it.`];
  const off = Math.max(...list.map((r) => Math.abs(r - 1)));
  if (step === 0) {
    return off < 1e-3 ? [where, "Nothing has been trained yet, so every ratio must be 1: sampler and scorer agree, and the loss is minus the mean advantage."]
      : [where, `Nothing has been trained yet, so every ratio must be 1, but one is off by ${short(off)}: the distribution that sampled is not the one that is scored.`];
  }
  const cuts = list.filter((_, t) => isClipped(now, t)).length;
  const t = focusToken(now);
  const moved = list[t] > 1 ? "up" : "down";
  const wanted = row.used[t] > 0 ? "up" : "down";
  return [where, quoted(row.tokens[t]), ` moved most: ${moved} to ${percent(list[t])} of its old probability, ${moved === wanted ? "as its advantage asks" : "against its advantage"}. `,
    cuts ? `${cuts} of ${list.length} tokens have left the clip range the way they should go and are pushed no further.` : "No token has reached the clip range: every gradient flows.",
    it.updates.length - 1 === step ? " The next iteration samples from this policy." : ""];
}

const W = 460, H = 204, LEFT = 16, RIGHT = 444, TOP = 40, BOTTOM = 160, LEVELS = 6;

// Where the dots stand: one above the other where they would hide each other, as high as there is
// room; the rest is counted.
function stack(points, x) {
  const levels = [];
  const placed = [...points].sort((a, b) => a.ratio - b.ratio).map((point) => {
    const cx = x(point.ratio);
    let level = levels.findIndex((right) => cx - right >= 8.5);
    if (level < 0) level = levels.length;
    levels[level] = cx;
    return { ...point, cx, level };
  });
  return { dots: placed.filter((p) => p.level < LEVELS), hidden: placed.filter((p) => p.level >= LEVELS) };
}

function shape(cut, cx, cy, current) {
  const node = cut ? svg("path", { class: "dot cut", d: `M${cx - 4.5} ${cy - 4.5}l9 9m0 -9l-9 9` })
    : svg("circle", { class: "dot", cx, cy, r: 4 });
  return current ? svg("g", {}, node, svg("circle", { class: "ring", cx, cy, r: 8.5 })) : node;
}

function dots(points, x, y, current) {
  const { dots: placed, hidden } = stack(points, x);
  const drawn = placed.map(({ cx, level, ratio, cut, t, text, used }) => {
    const node = shape(cut, cx, y(ratio) - 10 * level, t === current);
    node.append(svg("title", {}, `${token(text)}: ratio ${plain(ratio)}, Â ${signed(used)}${cut ? ", clipped" : ""}`));
    return node;
  });
  if (hidden.length) {
    const { cx, ratio } = hidden[0];
    drawn.push(svg("text", { class: "tip", x: cx + 9, y: y(ratio) - 10 * (LEVELS - 1) + 4 }, `+ ${hidden.length} more`));
  }
  return drawn;
}

// The clipped objective a unit of advantage, for one sign, with this answer's tokens on it.
function curve(now, up, domain) {
  const { data, row, t: current } = now;
  const [low, high] = [1 - data.eps, 1 + data.eps];
  const list = ratios(now) ?? [];
  const points = list.map((ratio, t) => ({ ratio, t, text: row.tokens[t], used: row.used[t], cut: isClipped(now, t) }))
    .filter((p) => p.used > 0 === up && Number.isFinite(p.ratio));
  const x = (r) => LEFT + ((clamp(r, ...domain) - domain[0]) / (domain[1] - domain[0])) * (RIGHT - LEFT);
  const gain = (r) => (up ? Math.min(r, high) : -Math.max(r, low));
  const ends = domain.map(gain);
  const [bottom, top] = [Math.min(...ends), Math.max(...ends)];
  const y = (r) => BOTTOM - 10 - ((gain(r) - bottom) / (top - bottom)) * (BOTTOM - TOP - 50);
  const bend = up ? high : low;
  const slope = up ? [domain[0], bend] : [bend, domain[1]];
  const flat = up ? [bend, domain[1]] : [domain[0], bend];
  const path = ([a, b], cls) => svg("path", { class: cls, d: `M${x(a)} ${y(a)}L${x(b)} ${y(b)}` });
  const label = (text, px, py, cls, anchor = "middle") =>
    svg("text", { class: cls, x: px, y: py, "text-anchor": anchor }, text);
  const ticks = () => (x(high) - x(low) < 70 ? [label(`1 ± ${short(data.eps)}`, x(low), BOTTOM + 18, "tip", "start")]
    : [low, 1, high].map((r) => label(short(r), x(r), BOTTOM + 18, "tip")));
  const title = up ? "Â > 0: make more likely" : "Â < 0: make less likely";
  const counts = `${points.length} ${points.length === 1 ? "token" : "tokens"}, ${points.filter((p) => p.cut).length} clipped`;
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, class: up ? "ft-clip up" : "ft-clip dn", role: "img", "aria-label": `Clipped objective, ${title}: ${counts}` },
    svg("rect", { class: "zone", x: x(low), y: TOP - 12, width: x(high) - x(low), height: BOTTOM - TOP + 12 }),
    svg("path", { class: "axis", d: `M${LEFT} ${BOTTOM}H${RIGHT}M${x(1)} ${BOTTOM}v5M${x(low)} ${BOTTOM}v5M${x(high)} ${BOTTOM}v5` }),
    path(slope, "curve"), path(flat, "curve flat"),
    label(title, LEFT, 17, "head", "start"), label(counts, RIGHT, 17, "tip", "end"),
    label("flat: no gradient", up ? RIGHT : LEFT, y(bend) + 20, "tip", up ? "end" : "start"),
    ...ticks(),
    label("ratio of new to old probability →", RIGHT, BOTTOM + 36, "tip", "end"),
    ...dots(points, x, y, current));
}

function curves(now) {
  const list = ratios(now);
  if (!list) return [];
  const { eps } = now.data;
  const finite = list.filter(Number.isFinite);
  const domain = [Math.max(0, Math.min(1 - 2.5 * eps, ...finite.map((r) => r - 0.05))), Math.max(1 + 2.5 * eps, ...finite.map((r) => r + 0.05))];
  return [h("div", { className: "ft-clips" }, curve(now, true, domain), curve(now, false, domain)),
    h("p", { className: "ft-marks" }, "○ gradient flows", h("span", { textContent: "✕ clipped" }), h("span", { textContent: "◎ the token of the formula" }),
      h("span", { textContent: `shaded: within 1 ± ${short(eps)}` }), h("span", { textContent: "click a token to pick it" }))];
}

function updateTable(now, onStep) {
  const heads = ["epoch", "minibatch", "policy loss", "value loss", "entropy", "clipped", "KL from old", `sample #${now.rowAt}`];
  const rows = now.it.updates.map((u, i) => {
    const cells = [u.e, u.m, short(u.policy), short(u.value), short(u.entropy), percent(u.cut), short(u.kl), now.rowAt in u.ratio ? "in it" : "–"];
    const row = h("tr", { className: i === now.step ? "cur" : "" }, ...cells.map((textContent) => h("td", { className: "num", textContent })));
    if (i === now.step) row.setAttribute("aria-current", "step");
    row.onclick = () => onStep(i);
    return row;
  });
  return h("div", { className: "ft-scroll" }, h("table", { className: "ft-table ft-ups" },
    h("thead", {}, h("tr", {}, ...heads.map((textContent) => h("th", { scope: "col", className: "num", textContent })))), h("tbody", {}, ...rows)));
}

// --- the card ------------------------------------------------------------------------------------

const ROLES = [
  ["actor", "Actor", () => "policy adapter · LM head"],
  ["critic", "Critic", () => "policy adapter · value head"],
  ["reward", "Reward", ({ reward }) => reward],
  ["reference", "Reference", ({ reference }) => reference],
];
const ROLE_WORDS = { runs: "runs", recorded: "its numbers", trained: "trained" };

function roles({ data, phase }) {
  const used = PHASES[phase].roles;
  const boxes = ROLES.map(([key, title, what]) => h("div", { className: `ft-role ${used[key] ?? ""}` },
    bold(title), h("small", { textContent: what(data) }),
    ...(used[key] ? [h("em", { textContent: ROLE_WORDS[used[key]] })] : [])));
  return h("div", { className: "ft-frame", role: "group", aria: { label: "What this phase uses" } },
    h("div", { className: "ft-roles" }, ...boxes, h("div", { className: "ft-base", textContent: data.base })));
}

const stats = (list) => h("div", { className: "ft-stat" }, ...list.map(([value, label]) =>
  h("span", { className: "ft-big" }, value, h("small", { textContent: label }))));

function texts({ row, phase, step }) {
  const upto = PHASES[phase].key === "rollout" ? row.tokens.slice(0, step + 1) : row.tokens;
  const shown = (text) => h("code", { textContent: text.replaceAll("\n", "⏎") });
  return [
    h("p", { className: "ft-prompt" }, `prompt, ${row.size} tokens: `, shown(row.prompt)),
    h("p", { className: "ft-prompt" }, "answer: ", shown(upto.join(""))),
  ];
}

function metricsTable({ it }) {
  const rows = Object.entries(it.metrics).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) =>
    h("tr", {}, h("th", { scope: "row", textContent: key }), h("td", { className: "num", textContent: short(Number(value)) })));
  return h("table", { className: "ft-table" }, h("tbody", {}, ...rows));
}

// One curve over the run for each watched metric; a click goes to the iteration below the pointer.
const SPARK = { width: 160, height: 38, inset: 5 };

function spark([key, unit, meaning], values, here, onPick) {
  const { width, height, inset } = SPARK;
  const finite = values.filter(Number.isFinite);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const x = (i) => inset + (i / (values.length - 1)) * (width - 2 * inset);
  const y = (v) => height - inset - ((v - low) / (high - low || 1)) * (height - 2 * inset);
  const path = values.flatMap((v, i) => (Number.isFinite(v) ? [`${x(i)} ${y(v)}`] : [])).join("L");
  const ends = `${short(values[0])} → ${short(values.at(-1))}`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${key} over iterations: ${ends}` },
    svg("path", { class: "here", d: `M${x(here)} 0V${height}` }), svg("path", { class: "run", d: `M${path}` }));
  if (Number.isFinite(values[here])) picture.append(svg("circle", { cx: x(here), cy: y(values[here]), r: 4 }));
  picture.onclick = ({ clientX }) => {
    const box = picture.getBoundingClientRect();
    const share = (((clientX - box.left) / box.width) * width - inset) / (width - 2 * inset);
    onPick(clamp(Math.round(share * (values.length - 1)), 0, values.length - 1));
  };
  return h("figure", { className: "ft-spark", title: meaning },
    h("figcaption", {}, h("code", { textContent: key }), bold(short(values[here])), h("small", { textContent: unit })),
    picture, h("small", { textContent: ends }));
}

function sparks({ data, at }, onPick) {
  const logged = data.watch.map((metric) => [metric, data.iterations.map((it) => Number(it.metrics[metric[0]] ?? NaN))]);
  return logged.filter(([, values]) => values.length > 1 && values.some(Number.isFinite))
    .map(([metric, values]) => spark(metric, values, at, onPick));
}

const TOLD = [["What happens", "say"], ["Where to look", "look"], ["The cure", "cure"]];
const story = (data) => TOLD.filter(([, key]) => data[key]).map(([label, key]) =>
  h("div", {}, h("dt", { textContent: label }), h("dd", { textContent: data[key] })));

// One button a recorded run, the reader's own first.
function buildPicker(presets, choose) {
  const named = Object.entries(presets).map(([key, data]) => [key, `${data.cure ? "✗" : "✓"} ${data.title || key}`]);
  const buttons = [["", "this run"], ...named].map(([key, text]) => {
    const node = h("button", { type: "button", textContent: text, onclick: () => choose(key) });
    return [key, node];
  });
  const sync = (chosen) => buttons.forEach(([key, node]) => node.setAttribute("aria-pressed", String(key === chosen)));
  const node = h("div", { className: "ft-pick", role: "group", hidden: named.length === 0, aria: { label: "recorded runs" } },
    h("span", { textContent: "compare with a recorded run" }), ...buttons.map(([, button]) => button));
  return { node, sync };
}

function button(text, label, onclick, className = "") {
  return h("button", { type: "button", textContent: text, title: label, className, onclick, aria: { label } });
}

// Bring the current column into view, sideways only: the page must not jump.
function reveal(scroller) {
  const column = scroller.querySelector("th.cur");
  if (!column) return;
  const first = scroller.querySelector("th").offsetWidth;
  const [left, right] = [column.offsetLeft, column.offsetLeft + column.offsetWidth];
  const margin = 2 * column.offsetWidth;
  if (left - margin < scroller.scrollLeft + first) scroller.scrollLeft = left - first - margin;
  else if (right + margin > scroller.scrollLeft + scroller.clientWidth) scroller.scrollLeft = right + margin - scroller.clientWidth;
}

function buildControls(act) {
  const slider = h("input", { type: "range", min: 0, step: 1, aria: { label: "iteration" } });
  slider.oninput = () => act.iteration(Number(slider.value));
  const count = h("output", {});
  const sample = h("select", { aria: { label: "sample" } });
  sample.onchange = () => act.set({ row: Number(sample.value) });
  const back = button("‹", "step back (←)", () => act.move(-1));
  const play = button("▶ play", "play (Space)", act.toggle, "ft-primary");
  const next = button("›", "step forward (→)", () => act.move(1));
  const iterationLabel = h("label", {}, "iteration ", slider, " ", count);
  const nodes = [iterationLabel, h("label", {}, "sample ", sample), h("span", { className: "ft-steps" }, back, play, next)];
  return { slider, count, sample, back, play, next, nodes };
}

// The beginning of what was asked last, without the template's marks and role names around it.
function asked(prompt) {
  const parts = prompt.split(/<\|[^|>]*\|>|\n/).map((part) => part.trim());
  const said = parts.filter((part) => part && !/^(system|user|assistant|model)$/.test(part));
  const text = said.at(-1) ?? prompt.trim();
  return text.length > 28 ? `${text.slice(0, 27)}…` : text;
}

function syncControls(c, now, { playing, still }) {
  c.slider.max = now.data.iterations.length - 1;
  c.slider.value = now.at;
  c.slider.disabled = now.data.iterations.length < 2;
  c.slider.setAttribute("aria-valuetext", `iteration ${now.it.n}`);
  c.count.textContent = `${now.it.n} / ${now.data.iterations.at(-1).n}`;
  c.sample.replaceChildren(...now.it.rows.map((row, i) => h("option", { value: i, textContent: `#${i} “${asked(row.prompt)}”` })));
  c.sample.value = now.rowAt;
  c.play.textContent = playing ? "❚❚ pause" : "▶ play";
  c.play.setAttribute("aria-label", playing ? "pause (Space)" : "play (Space)");
  c.play.disabled = still;
  c.play.title = still ? "Your system asks for less motion: step with ← →" : "Space";
  c.back.disabled = now.phase === 0 && now.step === 0;
  c.next.disabled = now.phase === PHASES.length - 1 && now.step >= now.steps - 1;
}

function phaseBar(act) {
  const buttons = PHASES.map(({ title }, i) => {
    const node = h("button", { type: "button" }, bold(String(i + 1)), title);
    node.onclick = () => act.set({ phase: PHASES[i].key, step: 0 });
    return node;
  });
  const items = buttons.map((node) => h("li", {}, node));
  const sync = (now) => items.forEach((item, i) => {
    item.className = i < now.phase ? "done" : i === now.phase ? "here" : "";
    if (i === now.phase) buttons[i].setAttribute("aria-current", "step");
    else buttons[i].removeAttribute("aria-current");
  });
  return { node: h("ol", { className: "ft-phases", aria: { label: "phases of one iteration" } }, ...items), sync };
}

// Where a step forward or back leads, over the borders of phases; undefined at either end.
function neighbour(now, by) {
  const step = now.step + by;
  if (step >= 0 && step < now.steps) return { step };
  const phase = now.phase + by;
  if (phase < 0 || phase >= PHASES.length) return undefined;
  const steps = PHASES[phase].steps(now);
  return { phase: PHASES[phase].key, step: by > 0 ? 0 : Math.max(0, steps - 1) };
}

// Clicking a token goes to its step; in the update it picks the token of the formula.
function stepOf(now, t) {
  const { key } = PHASES[now.phase];
  if (key === "gae") return now.size - 1 - t;
  return key === "rollout" || key === "kl" ? t : undefined;
}

function drawStage(now, act) {
  const phase = PHASES[now.phase];
  const onPick = (t) => {
    const step = stepOf(now, t);
    if (step !== undefined) act.set({ step });
    else if (now.update) act.pick(t);
  };
  const table = tokenTable(now, phase.lines(now), { hidden: phase.hidden?.(now), onPick });
  const sums = phase.sums?.(now);
  return { table, after: [...(sums ? [sums] : []), ...(now.update ? [...curves(now), updateTable(now, (step) => act.set({ step }))] : [])] };
}

// Walks on by itself until `advance` finds nothing more; `pace` says how long to stay.
function player(advance, pace, onChange) {
  let timer;
  const stop = () => {
    clearTimeout(timer);
    timer = undefined;
  };
  const wait = () => {
    timer = setTimeout(() => {
      if (advance()) wait();
      else stop();
      onChange();
    }, pace());
  };
  return { stop, start: wait, playing: () => timer !== undefined };
}

function listenToKeys(card, keys) {
  card.onkeydown = (event) => {
    const { target, key } = event;
    if (!(key in keys) || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (target.closest("select,input") || (key === " " && target.closest("button,summary"))) return;
    event.preventDefault();
    event.stopPropagation();
    keys[key]();
  };
}

// Everything below the header that changes with the place; `show` draws it anew.
function buildStage(act) {
  const [top, after] = [h("div"), h("div")];
  const scroller = h("div", { className: "ft-scroll" });
  const say = h("p", { className: "ft-say", role: "status" });
  const node = h("div", { className: "ft-stage", tabIndex: 0, role: "group",
    aria: { label: "PPO step by step: left and right arrow step, up and down change the phase" } }, top, scroller, after, say);
  const show = (now, playing) => {
    const phase = PHASES[now.phase];
    const drawn = drawStage(now, act);
    top.replaceChildren(roles(now), ...texts(now), stats(phase.stats(now)));
    scroller.replaceChildren(drawn.table);
    after.replaceChildren(...drawn.after);
    say.setAttribute("aria-live", playing ? "off" : "polite");
    say.replaceChildren(...phase.say(now));
    reveal(scroller);
  };
  return { node, show };
}

function buildFoot() {
  const where = h("span");
  const keys = h("span", { textContent: "← → step · ↑ ↓ phase · Home End first, last step of the phase · Space plays" });
  const metrics = h("details", { className: "ft-more" });
  const show = (now) => {
    const left = now.data.left_out ? ` · ${now.data.left_out} iterations left out to keep this small` : "";
    where.textContent = `${PHASES[now.phase].title}, step ${now.step + 1} of ${Math.max(1, now.steps)}${left}`;
    metrics.replaceChildren(h("summary", { textContent: `all metrics of iteration ${now.it.n}` }), metricsTable(now));
    metrics.hidden = Object.keys(now.it.metrics).length === 0;
  };
  return { nodes: [h("div", { className: "ft-foot" }, where, keys), metrics], show };
}

// What the reader can do. `at` gives the present scene, `set` moves, `draw` shows.
function actions({ at, set, draw, choose, still }) {
  let picked;
  const play = player(
    () => {
      const next = neighbour(at(), 1);
      if (next) set(next);
      return Boolean(next);
    },
    () => PHASES[at().phase].pace,
    draw);
  const go = (changes) => {
    play.stop();
    if ("iteration" in changes || "row" in changes) picked = undefined;
    set(changes);
    draw();
  };
  const phase = (by) => PHASES[at().phase + by] && go({ phase: PHASES[at().phase + by].key, step: 0 });
  const toggle = () => {
    if (play.playing() || still()) play.stop();
    else {
      if (!neighbour(at(), 1)) set({ phase: PHASES[0].key, step: 0 });
      play.start();
    }
    draw();
  };
  return {
    set: go,
    move: (by) => go(neighbour(at(), by) ?? {}),
    iteration: (index) => go({ iteration: at().data.iterations[index].n }),
    preset: (key) => go(choose(key)),
    pick: (t) => {
      picked = t;
      draw();
    },
    picked: () => picked,
    toggle,
    playing: play.playing,
    stop: play.stop,
    keys: {
      ArrowRight: () => go(neighbour(at(), 1) ?? {}),
      ArrowLeft: () => go(neighbour(at(), -1) ?? {}),
      ArrowDown: () => phase(1),
      ArrowUp: () => phase(-1),
      Home: () => go({ step: 0 }),
      End: () => go({ step: Math.max(0, at().steps - 1) }),
      " ": toggle,
    },
  };
}

function render({ model, el }) {
  const own = revive(JSON.parse(model.get("_data")));
  const presets = JSON.parse(model.get("_presets"));
  Object.values(presets).forEach(revive);
  const reduced = matchMedia("(prefers-reduced-motion: reduce)");
  let queued = false;

  // Read from the model every time: the reader may have moved on since the last drawing.
  const at = () => {
    const state = Object.fromEntries(SHARED.map((key) => [key, model.get(key)]));
    return scene(presets[state.preset] ?? own, state);
  };
  const set = (changes) => {
    model.set(changes);
    model.save_changes();
  };
  const choose = (key) => {
    const chosen = presets[key] ?? own;
    const [iteration, row, phase, step] = chosen.start ?? [chosen.iterations[0].n, 0, PHASES[0].key, 0];
    return { preset: key, iteration, row, phase, step };
  };
  const act = actions({ at, set, choose, draw: () => draw(), still: () => reduced.matches });
  const [controls, bar, stage, foot] = [buildControls(act), phaseBar(act), buildStage(act), buildFoot()];
  const picker = buildPicker(presets, act.preset);
  const title = h("h2");
  const told = h("dl", { className: "ft-story", role: "status" });
  const curvesOfRun = h("div", { className: "ft-sparks" });
  const card = h("section", { className: "ft-card", aria: { label: "PPO stepper" } },
    h("header", {}, title, h("div", { className: "ft-ctl" }, ...controls.nodes)),
    picker.node, told, curvesOfRun, bar.node, stage.node, ...foot.nodes);
  listenToKeys(card, act.keys);

  function draw() {
    queued = false;
    const now = at();
    if (now.update) now.t = focusToken(now, act.picked());
    const playing = act.playing();
    syncControls(controls, now, { playing, still: reduced.matches });
    picker.sync(model.get("preset"));
    bar.sync(now);
    title.textContent = now.data.title ? `PPO stepper: ${now.data.title}` : "PPO stepper";
    told.replaceChildren(...story(now.data));
    told.hidden = told.childElementCount === 0;
    curvesOfRun.replaceChildren(...sparks(now, act.iteration));
    curvesOfRun.hidden = curvesOfRun.childElementCount === 0;
    stage.show(now, playing);
    foot.show(now);
  }

  // JupyterLab would take arrows, Space and letters for notebook commands.
  el.append(h("div", { className: "ftkit ft-ppo", dataset: { lmSuppressShortcuts: "true" } }, card));
  const later = () => {
    if (!queued) queueMicrotask(draw);
    queued = true;
  };
  const events = SHARED.map((key) => `change:${key}`).join(" ");
  model.on(events, later);
  reduced.addEventListener("change", later);
  draw();
  return () => {
    act.stop();
    model.off(events, later);
    reduced.removeEventListener("change", later);
  };
}

// The same widget without a kernel: `state` is what the model would hold.
export function standalone(el, state) {
  const kept = { ...state };
  const ignore = () => {};
  const model = { get: (key) => kept[key], set: (changes) => Object.assign(kept, changes), save_changes: ignore, on: ignore, off: ignore };
  return render({ model, el });
}

export default { render };
