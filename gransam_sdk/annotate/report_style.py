"""The style sheet of ``report.html``: system fonts, light and dark, one column on a phone."""

from __future__ import annotations

STYLE = """
:root { --page: #f7f7f5; --card: #ffffff; --ink: #1b1d20; --quiet: #555b63; --line: #d9dce1; --accent: #2563a8;
  --pale: #aac4e2; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --card: #1e2125; --ink: #e9eaec; --quiet: #a8aeb6; --line: #383d44; --accent: #7db1ec;
    --pale: #3d5878; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0 0 .25rem; font-size: 1.9rem; line-height: 1.2; }
h2 { margin: 2.75rem 0 .6rem; font-size: 1.25rem; }
p { margin: .4rem 0 .8rem; max-width: 44rem; }
main > section > ul { max-width: 44rem; padding-left: 1.25rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.note, figcaption, .tiles li { color: var(--quiet); font-size: .875rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.25rem 0;
  padding: 0; list-style: none; }
.tiles li { padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.tiles strong { display: block; color: var(--ink); font-size: 1.6rem; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; background: var(--card); border: 1px solid var(--line); }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: middle; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--quiet); font-size: .8rem; font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 500; }
.classes tbody th { white-space: nowrap; }
.failures td, .failures th { vertical-align: top; }
.failures td { overflow-wrap: break-word; }
.failures tbody th { min-width: 8rem; }
tbody .number, thead .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { width: 45%; }
.track { display: block; min-width: 3rem; }
.bar { display: block; min-width: 2px; height: .85rem; border-radius: 2px; background: var(--accent);
  box-shadow: 0 0 0 1px var(--quiet); }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; vertical-align: -.06em;
  box-shadow: 0 0 0 1px var(--quiet); }
.sparkline { display: block; width: 8rem; height: 1.75rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.charts figure { padding: 1rem; }
.histogram { display: block; width: 100%; height: auto; }
svg text { fill: var(--quiet); font-size: 13px; }
.kept { fill: var(--accent); background: var(--accent); }
.below { fill: var(--pale); background: var(--pale); }
.axis { fill: none; stroke: var(--quiet); }
.mark { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.key { display: inline-block; width: .8em; height: .8em; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
figure img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--page); }
.gone { margin: 0; padding: 3rem 1rem; border-bottom: 1px solid var(--line); text-align: center; }
.sheet figcaption { padding: .6rem .8rem .7rem; }
.sheet b { color: var(--ink); font-weight: 600; }
.sheet p { margin: .15rem 0 0; }
.chips { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .2rem 0 0; padding: 0; list-style: none; }
details { margin-top: 1rem; }
dl { display: grid; grid-template-columns: minmax(8rem, 16rem) 1fr; gap: .3rem 1.5rem; margin: .5rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (max-width: 40rem) {
  body { padding: 1.25rem 1rem 3rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  th, td { padding: .4rem .5rem; }
  .wide { display: none; }
  thead th { white-space: normal; }
  .sparkline { width: 5rem; }
  thead th:has(.unseen) { display: none; }
  .failures thead { display: none; }
  .failures :is(tr, th, td) { display: block; border: 0; }
  .failures tr { padding: .4rem 0; border-bottom: 1px solid var(--line); }
  .failures :is(th, td) { padding: .05rem .5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print { body { background: none; } figure, tr { break-inside: avoid; } }
"""
