"""How the HTML report looks: on a wide screen, on a phone, in the dark, on paper."""

CSS = """
:root {
  --paper: #fff; --ink: #1c1d1f; --soft: #6b6f76; --rule: #d9dce1; --tint: #f5f6f8; --link: #0b5c94;
  --better: #005a8f; --worse: #a8430a; --same: #00694d; --open: #5d6168; --error: #a3140f;
  --arm1: #0072b2; --arm2: #d55e00; --arm3: #009e73; --arm4: #cc79a7; --arm5: #e69f00; --arm6: #56b4e9;
  --text: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", Arial, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181c; --ink: #e8e9eb; --soft: #9ba1aa; --rule: #363b43; --tint: #1f2228; --link: #7cc0ef;
    --better: #7cc0ef; --worse: #f2a270; --same: #6ed3b0; --open: #b3b8c0; --error: #ff8f87;
    --arm1: #4ea8e6; --arm2: #f08a45; --arm3: #35c79b; --arm4: #e3a1c5; --arm5: #f0b53a; --arm6: #9fd8f7;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3rem) 5rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.55 var(--text); }
header small { color: var(--soft); font: .85rem/1.6 var(--sans); }
h1 { margin: 0; font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15;
  letter-spacing: -.01em; overflow-wrap: anywhere; text-wrap: balance; }
header p { margin: .6rem 0 0; max-width: 46rem; color: var(--soft); overflow-wrap: anywhere; }
h2 { margin: 2.8rem 0 1rem; padding-top: .7rem; border-top: 1px solid var(--rule); font-size: 1.4rem; line-height: 1.25; }
p, section > ul { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin-top: 1.4rem; font: .85rem/1.9 var(--sans); }
nav a { text-decoration: none; }
nav a:hover, nav a:focus-visible { text-decoration: underline; }
ul { padding-left: 1.2rem; }
li + li { margin-top: .35rem; }
.verdicts { max-width: none; padding: 0; list-style: none; }
.verdicts li { display: grid; grid-template-columns: 8.2rem 1fr; gap: 0 1rem; align-items: baseline; margin: 0; padding: .55rem 0;
  border-bottom: 1px solid var(--rule); }
.verdicts li:first-child { border-top: 1px solid var(--rule); }
.verdicts span { overflow-wrap: anywhere; max-width: 52rem; }
.chip { font: 600 .8rem/1.5 var(--sans); white-space: nowrap; color: var(--open); }
.chip.better { color: var(--better); } .chip.worse { color: var(--worse); } .chip.equivalent { color: var(--same); }
.chip.withheld { color: var(--error); }
.whole { white-space: nowrap; }
.notice { margin: 1.5rem 0; padding: .9rem 1.1rem; border-left: 4px solid var(--soft); background: var(--tint); overflow-wrap: anywhere; }
.notice.error { border-color: var(--error); } .notice.error strong { color: var(--error); }
.notice ul { margin: .5rem 0 0; }
dl { display: grid; grid-template-columns: 12rem 1fr; gap: .4rem 1.5rem; margin: 0; font-size: .98rem; }
dt { color: var(--soft); font: .85rem/1.75 var(--sans); } dd { margin: 0; overflow-wrap: anywhere; max-width: 48rem; }
figure { margin: 1.4rem 0; min-width: 0; }
figcaption { margin-top: .5rem; max-width: 46rem; color: var(--soft); font: .82rem/1.45 var(--sans); overflow-wrap: anywhere; }
.scroll { overflow-x: auto; overscroll-behavior-x: contain; }
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: .5rem 2.5rem; align-items: start; }
.figures .wide { grid-column: 1 / -1; }
svg { display: block; width: 100%; max-width: calc(var(--width) * 1.75px); height: auto; color: var(--ink); font-family: var(--sans); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg image { image-rendering: pixelated; }
.wide svg { max-width: calc(var(--width) * 1.9px); min-width: min(52rem, calc(var(--width) * 1.5px)); }
table { border-collapse: collapse; font: .82rem/1.4 var(--sans); font-variant-numeric: tabular-nums lining-nums; }
th, td { padding: .38rem .6rem; text-align: right; white-space: nowrap; vertical-align: baseline; }
.words { text-align: left; }
td.words { max-width: 26rem; white-space: normal; overflow-wrap: break-word; }
thead th { white-space: normal; vertical-align: bottom; line-height: 1.25;
  border-top: 1.5px solid var(--ink); border-bottom: 1px solid var(--ink); font-weight: 600; }
tbody tr:last-child > * { border-bottom: 1.5px solid var(--ink); }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
tbody th { font-weight: 600; }
tr > :first-child { position: sticky; left: 0; padding-left: 0; background: var(--paper); }
tbody tr:hover > * { background: var(--tint); }
details { margin: .6rem 0; } summary { cursor: pointer; font: .9rem/1.6 var(--sans); }
pre { overflow-x: auto; margin: .4rem 0; padding: .8rem 1rem; background: var(--tint);
  font: .78rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
@media (max-width: 40rem) {
  body { padding-top: 1.4rem; font-size: 1rem; }
  dl, .verdicts li { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  h2 { margin-top: 2.4rem; }
  tr > :first-child { max-width: 8.5rem; white-space: normal; overflow-wrap: break-word; }
}
@media print {
  :root { --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb; --tint: #f4f4f4; --link: #000;
    --better: #005a8f; --worse: #a8430a; --same: #00694d; --open: #444; --error: #a3140f;
    --arm1: #0072b2; --arm2: #d55e00; --arm3: #009e73; --arm4: #cc79a7; --arm5: #e69f00; --arm6: #56b4e9; }
  @page { margin: 16mm 14mm; }
  html { font-size: 9pt; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  h2 { break-after: avoid; margin-top: 1.6rem; }
  figure, .verdicts li, .notice { break-inside: avoid; }
  .scroll { overflow: visible; }
  .figures { grid-template-columns: 1fr 1fr; }
  .wide svg { min-width: 0; }
  table { font-size: .7rem; } th, td { padding: .2rem .35rem; white-space: normal; }
}
"""
