// What the interactive pages share: the language, numbers as text, elements, the state in the address.
"use strict";

/** The state that an address names after #, as in tiles.html#rows=2&lang=zh. */
const address = new URLSearchParams(location.hash.slice(1));

const Language = {
  now: address.get("lang") || (navigator.language.startsWith("zh") ? "zh" : "en"),

  /** A string of the page's table TEXT, or what its function returns. */
  text(key, ...values) {
    const entry = (TEXT[this.now] || TEXT.en)[key];
    return typeof entry === "function" ? entry(...values) : entry;
  },

  /** Fills in all elements that name a string, and has the button switch to the other language. */
  apply() {
    document.documentElement.lang = this.now === "zh" ? "zh-CN" : "en";
    document.title = this.text("title");
    for (const e of document.querySelectorAll("[data-text]")) e.innerHTML = this.text(e.dataset.text);
    for (const e of document.querySelectorAll("[data-label]")) {
      e.setAttribute("aria-label", this.text(e.dataset.label));
      if (e.tagName === "BUTTON") e.title = this.text(e.dataset.label);
    }
    for (const e of document.querySelectorAll("a[data-page]")) e.href = e.dataset.page + "#lang=" + this.now;
  },
};

// A link to another state of the same page.
window.addEventListener("hashchange", () => location.reload());

let remembering = 0;

/** Keeps the state in the address, so that it can be linked to; not at every notch of a slider that moves. */
function remember(state) {
  for (const [key, value] of Object.entries({...state, lang: Language.now})) address.set(key, value);
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, "", "#" + address), 250);
}

/** A new element: element("td", {class: "x"}, "text" or elements). */
function element(name, attributes = {}, ...children) {
  const isDrawing = ["svg", "g", "rect", "path", "line", "text", "circle", "polyline", "title"].includes(name);
  const e = isDrawing ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

/** A number with two decimals and a real minus sign; -inf as −∞. */
function decimals(x) {
  if (x === "-inf") return "−∞";
  if (x === "inf") return "∞";
  const text = Math.abs(x).toFixed(2);
  return x < 0 && text !== "0.00" ? "−" + text : text;
}
