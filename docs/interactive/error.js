// The page of errors: its state, its controls, the chart and the numbers.
"use strict";

const $ = (id) => document.getElementById(id);
const CURVES = ["rigorous", "probable", "largest", "spread", "sigma"];
const OPTIONS = {
  element: ["float32", "float16", "bfloat16", "float8_e4m3fn"],
  weights: ["float32", "float16", "bfloat16", "float8_e4m3fn"],
  sums: ["tensor_core", "float32", "float16"],
  input: ["normal", "large", "spiky", "near uniform", "cancelling"],
  output: ["o", "lse"],
};
const START = {element: "float16", weights: "float16", sums: "tensor_core", input: "normal", output: "o"};
const state = {length: 5};
for (const [key, values] of Object.entries(OPTIONS)) {
  state[key] = values.includes(address.get(key)) ? address.get(key) : START[key];
}
const lengthAt = ERRORS.lengths.indexOf(Number(address.get("length")));
if (lengthAt >= 0) state.length = lengthAt;

const keyOf = (x) => `${x.element}/${x.weights}/${x.sums}/${x.input}`;
/** float32 products do not fit a tensor core: there are no such curves. */
const exists = (x) => keyOf(x) in ERRORS.curves;

/** 0.000137 as 1.37 · 10⁻⁴. */
function scientific(x) {
  if (x === null) return Language.text("none");
  if (x === 0) return "0";
  if (x >= 0.01 && x < 1000) return String(Number(x.toPrecision(3)));
  const [digits, exponent] = x.toExponential(2).split("e");
  return `${digits}\u00a0·\u00a010${superscript(Number(exponent))}`;
}
const superscript = (n) => [...String(n)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("");

const found = {};

/** Decades that hold all curves of these inputs and this output: the axis stays as precision changes. */
function decades() {
  const key = `${state.input} ${state.output}`;
  return (found[key] ??= findDecades());
}

function findDecades() {
  let low = Infinity, high = -Infinity;
  for (const [key, curves] of Object.entries(ERRORS.curves)) {
    if (!key.endsWith("/" + state.input)) continue;
    for (const name of CURVES) {
      for (const y of curves[state.output][name]) {
        if (!y) continue;
        low = Math.min(low, Math.log10(y));
        high = Math.max(high, Math.log10(y));
      }
    }
  }
  return [Math.floor(low), Math.ceil(high)];
}

function drawChart(curves) {
  const isNarrow = window.innerWidth <= 600;
  const width = isNarrow ? 480 : 760, height = isNarrow ? 500 : 460;
  const left = isNarrow ? 52 : 48, right = 14, top = 12, bottom = 42;
  const [low, high] = decades();
  const count = ERRORS.lengths.length;
  const xOf = (n) => left + (n / (count - 1)) * (width - left - right);
  const yOf = (y) => top + ((high - Math.log10(y)) / (high - low)) * (height - top - bottom);
  const drawing = element("svg",
    {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": Language.text("chart")});
  const line = (x1, y1, x2, y2, name) => drawing.append(element("line", {x1, y1, x2, y2, class: name}));
  const word = (x, y, text, anchor) => drawing.append(element("text", {x, y, "text-anchor": anchor}, text));
  const every = Math.ceil((high - low) / 9);
  for (let n = low; n <= high; ++n) {
    line(left, yOf(10 ** n), width - right, yOf(10 ** n), "grid");
    if ((n - low) % every === 0) word(left - 8, yOf(10 ** n) + 4, "10" + superscript(n), "end");
  }
  ERRORS.lengths.forEach((length, n) => {
    line(xOf(n), top, xOf(n), height - bottom, "grid");
    if (!isNarrow || n % 2 === 0) word(xOf(n), height - bottom + 18, String(length), n + 1 < count ? "middle" : "end");
  });
  word((left + width - right) / 2, height - 6, Language.text("keys"), "middle");
  line(xOf(state.length), top, xOf(state.length), height - bottom, "mark");
  for (const name of CURVES) {
    let path = "", isDown = false;
    curves[name].forEach((y, n) => {
      path += y ? `${isDown ? "L" : "M"}${xOf(n).toFixed(1)} ${yOf(y).toFixed(1)}` : "";
      isDown = Boolean(y);
    });
    drawing.append(element("path", {d: path, class: "curve " + name, "data-curve": name}));
    curves[name].forEach((y, n) => {
      if (!y || (name !== "largest" && n !== state.length)) return;
      drawing.append(element("circle", {cx: xOf(n), cy: yOf(y), r: n === state.length ? 5 : 3, class: name}));
    });
  }
  return drawing;
}

function drawLegend() {
  return CURVES.map((name) => element("span", {},
    element("svg", {viewBox: "0 0 30 12", "aria-hidden": "true"},
      element("path", {d: "M1 6H29", class: "curve " + name}),
      ...(name === "largest" ? [element("circle", {cx: 15, cy: 6, r: 3, class: name})] : [])),
    Language.text(name)));
}

function fillChoices() {
  for (const [key, values] of Object.entries(OPTIONS)) {
    if (key === "output") continue;
    $(key).replaceChildren(...values.map((value) => {
      const names = Language.text("names");
      const option = element("option", {value}, names[value]);
      if (key === "sums") option.disabled = !exists({...state, sums: value});
      return option;
    }));
    $(key).value = state[key];
  }
  for (const input of document.getElementsByName("output")) input.checked = input.value === state.output;
}

function render() {
  if (!exists(state)) state.sums = "float32";
  fillChoices();
  const curves = ERRORS.curves[keyOf(state)][state.output], at = (name) => curves[name][state.length];
  const length = ERRORS.lengths[state.length];
  $("length").max = ERRORS.lengths.length - 1;
  $("length").value = state.length;
  $("length").setAttribute("aria-valuetext", String(length));
  $("length-text").textContent = length;
  $("chart").replaceChildren(drawChart(curves));
  $("legend").replaceChildren(...drawLegend());
  const percent = at("ratio") === null ? null : `${Number((100 * at("ratio")).toPrecision(2))} %`;
  $("story").innerHTML = Language.text("story", {length, largest: scientific(at("largest")), ratio: percent});
  const row = (name, text, kind = "") => element("tr", {class: kind, "data-name": name},
    element("th", {scope: "row"}, Language.text(name)), element("td", {}, text));
  $("numbers").replaceChildren(element("caption", {}, Language.text("at_length", length)),
    element("tbody", {}, ...CURVES.map((name) => row(name, scientific(at(name)))),
      row("ratio", percent || Language.text("none"), "worst")));
  $("about-input").textContent = Language.text("about_input")[state.input];
  $("about-sums").textContent = Language.text("about_sums")[state.sums];
  remember({...state, length});
}

for (const key of ["element", "weights", "sums", "input"]) {
  $(key).addEventListener("change", (e) => { state[key] = e.target.value; render(); });
}
for (const input of document.getElementsByName("output")) {
  input.addEventListener("change", (e) => { state.output = e.target.value; render(); });
}
$("length").addEventListener("input", (e) => { state.length = Number(e.target.value); render(); });
$("language").addEventListener("click", () => {
  Language.now = Language.now === "zh" ? "en" : "zh";
  Language.apply();
  render();
});
window.addEventListener("resize", render);

Language.apply();
render();
