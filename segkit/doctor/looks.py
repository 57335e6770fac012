"""How the doctor's page looks: on a wide screen, on a phone, on paper."""

CSS = """
:root { --ink: #1c1d1f; --soft: #5f636a; --rule: #d9dce1; --tint: #f5f6f8; --link: #0b5c94;
  --error: #a3140f; --warning: #8a5a00; --note: #0b5c94; --good: #00694d;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", Arial, sans-serif; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3rem) 5rem; max-width: 72rem; background: #fff; color: var(--ink);
  font: 1rem/1.5 var(--sans); overflow-wrap: anywhere; }
header small { color: var(--soft); }
h1 { margin: 0; font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; text-wrap: balance; }
h1.bad { color: var(--error); } h1.good { color: var(--good); }
header p { margin: .4rem 0 0; color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin-top: 1.2rem; font-size: .9rem; }
a { color: var(--link); text-decoration: none; } a:hover, a:focus-visible { text-decoration: underline; }
h2 { margin: 2.4rem 0 1rem; padding-top: .7rem; border-top: 1px solid var(--rule); font-size: 1.3rem; }
h3 { margin: 0; font-size: 1.05rem; } h3 small { color: var(--soft); font-weight: 400; }
p { margin: .4rem 0; max-width: 48rem; }
article { margin: 0 0 1rem; padding: .9rem 1.1rem; border-left: 4px solid var(--edge); background: var(--tint); }
article.error { --edge: var(--error); } article.warning { --edge: #d99a1c; } article.note { --edge: #7aa6c8; }
.chip { color: var(--edge); font-size: .8rem; text-transform: uppercase; letter-spacing: .03em; }
.warning .chip { color: var(--warning); } .note .chip { color: var(--note); }
.remedy b { color: var(--good); font-weight: 600; }
ul { margin: .5rem 0; padding-left: 1.1rem; font-size: .88rem; color: var(--soft); }
.pictures { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; margin-top: .6rem; }
.beside { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; min-width: 0; }
.beside figure { max-width: 100%; }
.beside figure div { display: flex; gap: 2px; align-items: flex-start; }
.beside img { display: block; max-width: min(176px, 42vw); height: auto; border: 1px solid var(--rule); }
.none { padding: 1.4rem .8rem; border: 1px dashed var(--rule); color: var(--soft); font-size: .82rem; background: #fff; }
figcaption { margin-top: .2rem; color: var(--soft); font-size: .78rem; max-width: 22rem; }
.scroll { overflow-x: auto; margin: .4rem 0 1rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; text-align: right; vertical-align: baseline; overflow-wrap: normal; white-space: nowrap; }
th:first-child, .words { text-align: left; } th:first-child, td:first-child { padding-left: 0; }
td.words { white-space: normal; } td.words + td.words, td:last-child.words { min-width: 11rem; }
thead th { border-bottom: 1px solid var(--ink); white-space: normal; vertical-align: bottom; }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
td.bar { min-width: 13rem; text-align: left; }
td.bar i { display: block; height: .55rem; min-width: 1px; border: 1px solid rgb(0 0 0 / .35); }
td.bar span { margin-right: .6rem; } td.bar small { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem 2rem; }
svg { display: block; width: 100%; max-width: 30rem; height: auto; font: 11px var(--sans); } svg .tick { fill: var(--soft); }
dl { display: grid; grid-template-columns: minmax(14rem, auto) 1fr; gap: .3rem 1.5rem; }
dt { font: .86rem/1.6 ui-monospace, Menlo, Consolas, monospace; } dd { margin: 0; color: var(--soft); }
pre { overflow-x: auto; padding: .8rem 1rem; background: var(--tint); white-space: pre-wrap;
  font: .8rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
@media (max-width: 40rem) {
  body { padding-top: 1.3rem; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  td.bar { min-width: 7.5rem; } td.bar small { display: block; } article { padding: .8rem; }
}
@media print { nav { display: none; } body { padding: 0; } article, figure { break-inside: avoid; } .scroll { overflow: visible; } }
"""
