// The map of tiles.html: all scores, with Q, K, V and the results around them.
"use strict";

const CELL = 30, STRIP = 15, GAP = 8, WIDTH = 4, COUNT = 8;
const CORE = WIDTH * STRIP + GAP;  // where the scores begin, from the left and from the top
const SIDE = 2 * CORE + COUNT * CELL;

/** A drawing of one step. `trace` is of data/tiles.js, `steps` of tiles.js, `now` an index of them. */
function drawMap(trace, steps, now, isBackward) {
  const drawing = element("svg", {viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img"});
  const rect = (x, y, width, height, attributes) =>
    drawing.append(element("rect", {x, y, width, height, ...attributes}));
  const word = (x, y, text, anchor = "middle", name = "symbol") =>
    drawing.append(element("text", {x, y, "text-anchor": anchor, class: name}, text));
  const pattern = document.createElementNS("http://www.w3.org/2000/svg", "pattern");
  for (const [key, value] of Object.entries({id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)"})) pattern.setAttribute(key, value);
  pattern.append(element("line", {x1: 0, y1: 0, x2: 0, y2: 5, stroke: "var(--hatch)", "stroke-width": 2}));
  drawing.append(pattern);

  const step = steps[now];
  const inRows = (i) => step.row <= i && i < step.row + step.rows;
  const inKeys = (j) => !step.end && step.key <= j && j < step.key + step.keys;
  const reached = (i) => steps.slice(0, now + 1).some((x) => x.row <= i && i < x.row + x.rows);
  const touched = (j) => steps.slice(0, now + 1).some((x) => !x.end && x.key <= j && j < x.key + x.keys);

  // The scores: hatched where masked, filled by their weight where a tile has been.
  for (let i = 0; i < COUNT; ++i) {
    for (let j = 0; j < COUNT; ++j) {
      const x = CORE + j * CELL + 1, y = CORE + i * CELL + 1;
      rect(x, y, CELL - 2, CELL - 2, {rx: 4, fill: j > i ? "url(#hatch)" : "var(--inset)"});
    }
  }
  steps.slice(0, now + 1).forEach((tile) => {
    if (tile.end) return;
    tile.p.forEach((row, i) => row.forEach((p, j) => {
      if (!tile.sees[i][j]) return;
      rect(CORE + (tile.key + j) * CELL + 1, CORE + (tile.row + i) * CELL + 1, CELL - 2, CELL - 2,
        {rx: 4, fill: "var(--tile)", "fill-opacity": 0.15 + 0.75 * Math.min(p, 1)});
    }));
  });
  for (const tile of isBackward ? trace.backward : trace.forward) {
    const index = steps.findIndex((x) => x.tile === tile);
    const box = {x: CORE + tile.key * CELL - 0.5, y: CORE + tile.row * CELL - 0.5};
    rect(box.x, box.y, tile.keys * CELL + 1, tile.rows * CELL + 1, {
      rx: 5, fill: "transparent", stroke: index === now ? "var(--tile)" : "var(--hatch)",
      "stroke-width": index === now ? 0 : 1, ...(index < 0 ? {"stroke-dasharray": "3 3"} : {"data-step": index})});
  }
  if (!step.end) {
    rect(CORE + step.key * CELL - 1, CORE + step.row * CELL - 1, step.keys * CELL + 2, step.rows * CELL + 2,
      {rx: 6, fill: "none", stroke: "var(--tile)", "stroke-width": 3.5, "pointer-events": "none"});
  }

  // Beside them, Q (and dO) on the left, K on top, V below, what is computed on the right.
  const events = step.end ? [] : step.events;
  const strip = (at, isRow, side, isOn, isNow, tint) => {
    const along = CORE + at * CELL + 1, across = side === 0 ? 0 : CORE + COUNT * CELL + GAP;
    const stroke = isNow ? `var(--${tint})` : "none";
    const fill = isOn ? `var(--${tint}-tint)` : "var(--inset)";
    const size = [WIDTH * STRIP, CELL - 2];
    if (isRow) rect(across, along, ...size, {rx: 4, fill, stroke, "stroke-width": 2});
    else rect(along, across, size[1], size[0], {rx: 4, fill, stroke, "stroke-width": 2});
    const x = isRow ? across + size[0] / 2 : along + size[1] / 2;
    const y = isRow ? along + size[1] / 2 : across + size[0] / 2;
    if (side === 0) word(x, y + 4, (isRow ? "q" : "k") + at, "middle", "name");
  };
  for (let n = 0; n < COUNT; ++n) {
    strip(n, true, 0, inRows(n), inRows(n), "row");
    strip(n, true, 1, reached(n), inRows(n), events.includes(n) ? "event" : "row");
    strip(n, false, 0, inKeys(n), inKeys(n), "key");
    strip(n, false, 1, isBackward ? touched(n) : inKeys(n), inKeys(n), "key");
  }
  const end = SIDE - WIDTH * STRIP;
  word(WIDTH * STRIP / 2, CORE - 6, isBackward ? "Q, dO" : "Q");
  word(end + WIDTH * STRIP / 2, CORE - 6, isBackward ? "dQ" : "O");
  word(CORE - 6, WIDTH * STRIP / 2 + 5, isBackward ? "K, V" : "K", "end");
  word(CORE - 6, end + WIDTH * STRIP / 2 + 5, isBackward ? "dK, dV" : "V", "end");
  const computed = steps.filter((x) => !x.end).length;
  const all = (isBackward ? trace.backward : trace.forward).length;
  drawing.setAttribute("aria-label", Language.text("map", computed, all - computed));
  return drawing;
}

/** What the colours of the map mean. */
function drawLegend(skipped, isBackward) {
  const sample = (attributes, text) => element("span", {},
    element("svg", {viewBox: "0 0 14 14", "aria-hidden": "true"},
      element("rect", {x: 1, y: 1, width: 12, height: 12, rx: 3, fill: "none", ...attributes})), text);
  const items = [
    sample({stroke: "var(--tile)", "stroke-width": 2}, Language.text("legend_now")),
    sample({fill: "var(--tile)", "fill-opacity": 0.6}, Language.text("legend_weight")),
    sample({fill: "url(#hatch)"}, Language.text("legend_masked")),
    sample({stroke: "var(--soft)", "stroke-dasharray": "2 2"}, Language.text("legend_skipped", skipped)),
  ];
  const event = {fill: "var(--event-tint)", stroke: "var(--event)"};
  if (!isBackward) items.push(sample(event, Language.text("legend_event")));
  return items;
}
