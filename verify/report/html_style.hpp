// How the page of html.cpp looks: by day, by night, on paper, from 360 pixels up.
#pragma once

namespace attest {

// Below the bound blue, beyond it orange to brown: lightness falls (by night: rises) from step to step, so
// that the order survives without colour.
inline constexpr const char* picture_style = R"(
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1b1f24; --soft: #5b636c; --line: #dde1e5; --link: #1a5fb4;
  --pass: #1a7340; --inconclusive: #8a5a00; --fail: #b3261e;
  --r0: #e2eaf3; --r1: #c3d4e6; --r2: #9ab7d5; --r3: #6c95c1; --r4: #dd6b0d; --r5: #a93a06; --r6: #6d1a03; --r7: #1c0a05;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --ink: #e6e9ec; --soft: #a0a8b0; --line: #31373d; --link: #8ab4f8;
    --pass: #6cc58f; --inconclusive: #e3b04f; --fail: #ff8f85;
    --r0: #1f2b38; --r1: #2b425a; --r2: #3b5d82; --r3: #527db0; --r4: #e2791b; --r5: #f4a957; --r6: #fad49c; --r7: #fffaf0;
  }
}
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
.middle { text-anchor: middle; } .end { text-anchor: end; }
.cells { fill: none; stroke-width: 1; shape-rendering: crispEdges; }
.r0 { stroke: var(--r0); background: var(--r0); } .r1 { stroke: var(--r1); background: var(--r1); }
.r2 { stroke: var(--r2); background: var(--r2); } .r3 { stroke: var(--r3); background: var(--r3); }
.r4 { stroke: var(--r4); background: var(--r4); } .r5 { stroke: var(--r5); background: var(--r5); }
.r6 { stroke: var(--r6); background: var(--r6); } .r7 { stroke: var(--r7); background: var(--r7); }
.r8 { stroke: var(--soft); stroke-width: .12; background: linear-gradient(var(--page) 45%, var(--soft) 45% 55%, var(--page) 55%); }
.wrong, .halo, .group, .tile, .normal { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.halo { stroke: var(--page); stroke-width: 4; stroke-opacity: .8; }
.group { stroke: var(--page); } .tile { stroke-width: 1; stroke-dasharray: 1 3; }
.bars { fill: var(--r2); } .normal { stroke-width: 1; }
)";

// What is around them.
inline constexpr const char* page_style = R"(
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 60rem; padding: 3rem 1.5rem 6rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.25; font-weight: 600; letter-spacing: -0.01em; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; line-height: 1.3; font-weight: 600; margin: 0; }
h3 { font-size: 1rem; font-weight: 600; margin: 2.5rem 0 .5rem; }
p, ul, ol, dl { margin: .5rem 0; }
ul, ol { padding-left: 1.25rem; }
a { color: var(--link); text-underline-offset: .15em; text-decoration-thickness: 1px; }
.soft, figcaption, thead th, summary, dt { color: var(--soft); font-size: .875rem; font-weight: 400; }
.pass { color: var(--pass); } .inconclusive { color: var(--inconclusive); } .fail, .invalid, .internal { color: var(--fail); }
section { margin-top: 4rem; padding-top: 2rem; border-top: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; margin: 1.5rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .45rem 1rem .45rem 0; border-bottom: 1px solid var(--line); font-weight: 400; }
th:last-child, td:last-child { padding-right: 0; }
tbody th[scope="rowgroup"] { padding-top: 1.5rem; color: var(--soft); font-size: .875rem; }
th, td { overflow-wrap: normal; } th a { overflow-wrap: anywhere; } td span { white-space: nowrap; margin-right: .75rem; }
td small, th small { display: block; color: var(--soft); font-size: .8125rem; }
td.small { padding-bottom: 0; white-space: nowrap; } td svg { display: inline-block; margin: .2rem 1rem .3rem 0; vertical-align: top; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .5rem 1rem; margin: 1rem 0; }
dt { padding-top: .1rem; } dd { margin: 0; } dd ul, dd ol { margin: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.5rem 2rem; margin: 1rem 0; }
figure { margin: 0; width: min-content; min-width: 15rem; break-inside: avoid; }
figcaption { margin-top: .25rem; line-height: 1.4; }
svg { display: block; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; font-size: .8125rem; color: var(--soft); }
.legend i { display: inline-block; width: 1rem; height: .75rem; margin-right: .35rem; }
pre { font: .8125rem/1.5 ui-monospace, monospace; white-space: pre-wrap; }
summary { cursor: pointer; } :focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
* { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
@media print {
  :root { color-scheme: light; } body { max-width: none; padding: 0; font-size: 10pt; }
  tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
@media (max-width: 40rem) {
  body { padding: 1.25rem 1rem 3rem; } h1 { font-size: 1.4rem; }
  section { margin-top: 2.5rem; padding-top: 1.5rem; }
  table { font-size: .8125rem; } th, td { padding-right: .4rem; overflow-wrap: anywhere; } td small, th small { font-size: .75rem; }
  td.small svg { display: block; margin-right: 0; width: 3rem; height: auto; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .75rem; }
}
)";

}  // namespace attest
