// The page of tiles: its state, its controls, and the cards that show the numbers of one step.
"use strict";

const $ = (id) => document.getElementById(id);
const PAUSE = 1800;  // milliseconds from step to step while playing
const numberFrom = (key, low, high, fallback) => {
  const x = parseInt(address.get(key), 10);
  return x >= low && x <= high ? x : fallback;
};
const state = {
  pass: address.get("pass") === "backward" ? "backward" : "forward",
  rows: numberFrom("rows", 1, 6, 2),
  keys: numberFrom("keys", 1, 8, 3),
  step: numberFrom("step", 1, 999, 1) - 1,
};
let timer = 0;

const traceNow = () => TRACES[`${state.rows}x${state.keys}`];

/** The computed tiles of a pass, and after those of a tile of rows one step that ends it. */
function stepsOf(trace, pass) {
  const steps = [];
  const tiles = trace[pass];
  tiles.forEach((tile, n) => {
    if (tile.kind !== "none") steps.push({...tile, tile, events: rescaledRows(tile)});
    if (n + 1 < tiles.length && tiles[n + 1].row === tile.row) return;
    const skipped = tiles.filter((x) => x.row === tile.row && x.kind === "none").length;
    steps.push({end: true, row: tile.row, rows: tile.rows, skipped, isLast: n + 1 === tiles.length});
  });
  return steps;
}

/** Rows whose maximum rises in a forward tile, after they have seen keys. */
function rescaledRows(tile) {
  if (!tile.m) return [];
  return tile.m.map((m, i) => (tile.m_before[i] !== "-inf" && tile.factor[i] < 1 ? tile.row + i : -1))
    .filter((row) => row >= 0);
}

const names = (letter, first, count) => Array.from({length: count}, (_, n) => letter + (first + n));
const slice = (matrix, first, count) => matrix.slice(first, first + count);

/** A matrix as a table. options: label, tint, heads of rows and columns, hidden(i, j), weight(i, j), event(i, j). */
function table(name, values, options) {
  const body = values.map((row, i) => element("tr", {}, element("th", {scope: "row"}, options.rows[i]),
    ...row.map((x, j) => {
      const cell = element("td", {}, decimals(x));
      if (options.hidden && options.hidden(i, j)) cell.className = "hidden";
      if (options.event && options.event(i, j)) cell.className = "event";
      if (options.weight) cell.style.setProperty("--weight", Math.min(Math.abs(options.weight(i, j)), 1).toFixed(3));
      return cell;
    })));
  const head = element("tr", {}, element("td", {class: "corner"}),
    ...(options.columns || []).map((x) => {
      const cell = element("th", {scope: "col"});
      cell.innerHTML = x;
      return cell;
    }));
  const caption = element("caption", {class: "math"});
  caption.innerHTML = options.label ?? name;
  const kinds = [options.tint || "tile", options.isNew ? "new" : "", values[0].length > 5 ? "wide" : ""];
  return element("table", {"data-name": name, class: kinds.filter(Boolean).join(" ")},
    caption, ...(options.columns ? [element("thead", {}, head)] : []), element("tbody", {}, ...body));
}

function card(title, formula, note, ...operands) {
  const heading = element("h2", {}, Language.text(title));
  const math = element("span", {class: "math"});
  math.innerHTML = formula;
  heading.append(math);
  const result = element("section", {class: "card"}, heading);
  result.append(element("div", {class: "operands"}, ...operands));
  if (note) result.append(element("p", {class: "note"}, Language.text(note)));
  return result;
}

const O = "<i>O</i>", I = "<sub><i>i</i></sub>", J = "<sub><i>j</i></sub>", T = "<sup>T</sup>";
const KEPT = ["<i>m</i><sub>old</sub>", "<i>m</i>", "factor", "<i>l</i><sub>old</sub>", "<i>l</i>"];
const column = (values) => values.map((x) => [x]);

function forwardCards(trace, x) {
  const rows = names("q", x.row, x.rows), keys = names("k", x.key, x.keys);
  const hidden = (i, j) => !x.sees[i][j];
  const event = (i) => x.events.includes(x.row + i);
  const state = x.m.map((_, i) => [x.m_before[i], x.m[i], x.factor[i], x.l_before[i], x.l[i]]);
  return [
    card("scores", `<i>S</i> = scale · <i>Q</i>${I} <i>K</i>${J}${T}`, null,
      table("q", slice(trace.q, x.row, x.rows), {rows, tint: "row", label: `<i>Q</i>${I}`}),
      table("k", slice(trace.k, x.key, x.keys), {rows: keys, tint: "key", label: `<i>K</i>${J}`}),
      table("s", x.s, {rows, columns: keys, hidden, label: "<i>S</i>", isNew: true})),
    card("rows", "<i>m</i> = max(<i>m</i><sub>old</sub>, row max <i>S</i>), " +
      "factor = e<sup><i>m</i><sub>old</sub> − <i>m</i></sup>, <i>l</i> = factor · <i>l</i><sub>old</sub> + Σ<i>P</i>",
      "rows_note",
      table("state", state, {rows, columns: KEPT, tint: "row", label: "",
        event: (i, j) => event(i) && (j === 1 || j === 2)})),
    card("weights", "<i>P</i> = e<sup><i>S</i> − <i>m</i></sup>", null,
      table("p", x.p, {rows, columns: keys, hidden, weight: (i, j) => x.p[i][j], label: "<i>P</i>", isNew: true})),
    card("accumulator", `${O} = factor · ${O}<sub>old</sub> + <i>P</i> <i>V</i>${J}`, null,
      table("o_before", x.o_before, {rows, tint: "row", label: `${O}<sub>old</sub>`, event: (i) => event(i)}),
      table("v", slice(trace.v, x.key, x.keys), {rows: names("v", x.key, x.keys), tint: "key", label: `<i>V</i>${J}`}),
      table("o", x.o, {rows, tint: "row", label: O, isNew: true})),
  ];
}

function forwardEnd(trace, x) {
  const rows = names("q", x.row, x.rows);
  const last = trace.forward.filter((y) => y.kind !== "none" && y.row === x.row).pop();
  return [card("result", `<i>o</i> = ${O} / <i>l</i>, &nbsp; lse = <i>m</i> + ln <i>l</i>`, null,
    table("o_before", last.o, {rows, tint: "row", label: O}),
    table("l", column(last.l), {rows, tint: "row", label: "<i>l</i>"}),
    table("m", column(last.m), {rows, tint: "row", label: "<i>m</i>"}),
    table("o", slice(trace.o, x.row, x.rows), {rows, tint: "row", label: "<i>o</i>", isNew: true}),
    table("lse", column(slice(trace.lse, x.row, x.rows)), {rows, tint: "row", label: "lse", isNew: true}))];
}

function backwardCards(trace, x) {
  const rows = names("q", x.row, x.rows), keys = names("k", x.key, x.keys);
  const hidden = (i, j) => !x.sees[i][j];
  const tile = (name, label, options = {}) => table(name, x[name], {rows, columns: keys, hidden, label, ...options});
  const operand = (name, heads, tint, label) => table(name, tint === "row" ? slice(trace[name], x.row, x.rows)
    : slice(trace[name], x.key, x.keys), {rows: heads, tint, label});
  const pair = (name, heads, tint, label) => [
    table(name + "_before", x[name + "_before"], {rows: heads, tint, label: `${label}<sub>old</sub>`}),
    table(name, x[name], {rows: heads, tint, label, isNew: true})];
  return [
    card("recomputed", "<i>P</i> = e<sup><i>S</i> − lse</sup>", null, tile("s", "<i>S</i>"),
      table("lse", column(x.lse), {rows, columns: [""], tint: "row", label: "lse"}),
      tile("p", "<i>P</i>", {weight: (i, j) => x.p[i][j], isNew: true})),
    card("gradient_v", `<i>dV</i>${J} += <i>P</i>${T} <i>dO</i>${I}`, null,
      operand("do", rows, "row", `<i>dO</i>${I}`), ...pair("dv", keys, "key", "<i>dV</i>")),
    card("gradient_s",
      `<i>dP</i> = <i>dO</i>${I} <i>V</i>${J}${T}, &nbsp; <i>dS</i> = <i>P</i> ∘ (<i>dP</i> − <i>δ</i>)`,
      "delta_note", tile("dp", "<i>dP</i>"),
      table("delta", column(x.delta), {rows, columns: [""], tint: "row", label: "<i>δ</i>"}),
      tile("ds", "<i>dS</i>", {isNew: true})),
    card("gradient_q", `<i>dQ</i>${I} += <i>dS</i> <i>K</i>${J}`, null,
      operand("k", keys, "key", `<i>K</i>${J}`), ...pair("dq", rows, "row", "<i>dQ</i>")),
    card("gradient_k", `<i>dK</i>${J} += <i>dS</i>${T} <i>Q</i>${I}`, null,
      operand("q", rows, "row", `<i>Q</i>${I}`), ...pair("dk", keys, "key", "<i>dK</i>")),
  ];
}

function backwardEnd(trace, x) {
  const rows = names("q", x.row, x.rows), keys = names("k", 0, trace.k.length);
  const last = trace.backward.filter((y) => y.kind !== "none" && y.row === x.row).pop();
  const cards = [card("gradient_q", "<i>dq</i> = scale · <i>dQ</i>", null,
    table("dq_before", last.dq, {rows, tint: "row", label: "<i>dQ</i>"}),
    table("dq", slice(trace.dq, x.row, x.rows), {rows, tint: "row", label: "<i>dq</i>", isNew: true}))];
  if (x.isLast) {
    cards.push(card("result", "<i>dk</i> = scale · <i>dK</i>, &nbsp; <i>dv</i> = <i>dV</i>", null,
      table("dk", trace.dk, {rows: keys, tint: "key", label: "<i>dk</i>"}),
      table("dv", trace.dv, {rows: keys, tint: "key", label: "<i>dv</i>"})));
  }
  return cards;
}

function story(x) {
  const isForward = state.pass === "forward";
  if (x.end) {
    const text = Language.text(isForward ? "forward_end" : "backward_end", x);
    return text + (!isForward && x.isLast ? " " + Language.text("backward_last") : "");
  }
  if (!isForward) return Language.text("backward_tile", x);
  const isFirst = x.m_before.every((m) => m === "-inf");
  return Language.text("forward_tile", x) + (isFirst ? Language.text("first_keys")
    : x.events.length > 0 ? Language.text("rescaled", x.events) : Language.text("not_rescaled"));
}

function render() {
  const trace = traceNow(), steps = stepsOf(trace, state.pass), isBackward = state.pass === "backward";
  state.step = Math.min(state.step, steps.length - 1);
  const x = steps[state.step];
  for (const name of ["rows", "keys"]) {
    $(name).value = state[name];
    $(name + "-text").textContent = state[name];
  }
  for (const input of document.getElementsByName("pass")) input.checked = input.value === state.pass;
  $("step").max = steps.length - 1;
  $("step").value = state.step;
  $("position").textContent = Language.text("position", state.step + 1, steps.length);
  $("step").setAttribute("aria-valuetext", $("position").textContent);
  $("play").textContent = Language.text(timer ? "pause" : "play");
  $("first").disabled = $("back").disabled = state.step === 0;
  $("next").disabled = $("last").disabled = state.step === steps.length - 1;
  $("story").innerHTML = story(x);
  $("map").replaceChildren(drawMap(trace, steps, state.step, isBackward));
  $("legend").replaceChildren(...drawLegend(trace[state.pass].filter((y) => y.kind === "none").length, isBackward));
  const cards = isBackward ? (x.end ? backwardEnd : backwardCards) : x.end ? forwardEnd : forwardCards;
  $("step-cards").replaceChildren(...cards(trace, x));
  remember({...state, step: state.step + 1});
}

function stop() {
  clearInterval(timer);
  timer = 0;
}

/** Goes to a step; a button that this disables hands its focus on. */
function go(step) {
  const count = stepsOf(traceNow(), state.pass).length;
  state.step = Math.max(0, Math.min(step, count - 1));
  if (state.step === count - 1) stop();
  const focused = document.activeElement;
  render();
  if (focused && focused.disabled) $("play").focus();
}

function toggle() {
  if (timer) {
    stop();
    render();
    return;
  }
  const isAtEnd = state.step === stepsOf(traceNow(), state.pass).length - 1;
  timer = setInterval(() => go(state.step + 1), PAUSE);
  go(isAtEnd ? 0 : state.step);
}

function change(key, value) {
  stop();
  state[key] = value;
  state.step = 0;
  render();
}

for (const name of ["rows", "keys"]) $(name).addEventListener("input", (e) => change(name, Number(e.target.value)));
for (const input of document.getElementsByName("pass")) {
  input.addEventListener("change", (e) => change("pass", e.target.value));
}
const actions = {
  first: () => go(0), last: () => go(Infinity), play: toggle,
  back: () => { stop(); go(state.step - 1); },
  next: () => { stop(); go(state.step + 1); },
};
for (const [name, action] of Object.entries(actions)) $(name).addEventListener("click", action);
$("step").addEventListener("input", (e) => { stop(); go(Number(e.target.value)); });
$("map").addEventListener("click", (e) => {
  if (e.target.dataset.step) { stop(); go(Number(e.target.dataset.step)); }
});
$("language").addEventListener("click", () => {
  Language.now = Language.now === "zh" ? "en" : "zh";
  Language.apply();
  render();
});
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.altKey || e.metaKey || e.target.tagName === "INPUT") return;
  const isPressed = e.key === " " && e.target.closest("button, a");  // Space presses what has the focus
  const action = {ArrowLeft: actions.back, ArrowRight: actions.next, Home: actions.first, End: actions.last,
    " ": isPressed ? null : actions.play, f: () => change("pass", "forward"), b: () => change("pass", "backward"),
  }[e.key.length === 1 ? e.key.toLowerCase() : e.key];
  if (!action) return;
  e.preventDefault();
  action();
});

Language.apply();
render();
