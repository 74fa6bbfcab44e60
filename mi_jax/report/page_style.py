"""The style sheet of the report page, for wide and narrow screens and for print; always light."""

CSS = """
:root { color-scheme: light; --ink: #1c1f23; --soft: #5b636d; --line: #dfe3e8; --tint: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 40px 0 8px; padding-bottom: 4px; border-bottom: 2px solid var(--ink); }
h3 { font-size: 1.02rem; margin: 0 0 8px; }
h4 { margin: 20px 0 4px; }
header p, .small, figcaption, caption, .why { color: var(--soft); }
header p { margin: 0; }
.small, figcaption, caption, details table, details p { font-size: .88rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 8px; }
th, td { text-align: left; vertical-align: top; padding: 9px 12px 9px 0; border-bottom: 1px solid var(--line); }
thead th { font-size: .82rem; color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; }
.claims tbody th { width: 34%; }
.claims tbody td:last-child { font-size: .88rem; width: 19%; }
.number { font-weight: 700; margin-right: 2px; }
.headline tbody th { font-weight: 600; }
.headline .value { font-weight: 600; white-space: nowrap; }
.ends { color: var(--soft); white-space: nowrap; font-size: .88rem; }
.why { display: block; font-size: .8rem; line-height: 1.35; font-weight: 400; }
.claims .value { display: block; font-size: .9rem; white-space: nowrap; margin-top: 3px; }
.verdict { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: .82rem; font-weight: 600; }
.supported { background: #d9ecf7; color: #003f66; }
.mixed { background: #f3e2c9; color: #663c00; }
.contradicted { background: #f7d8c9; color: #7a2500; }
.equivalent { background: #dcefdc; color: #1d4d1d; }
.undecided { background: #e9ebee; color: #3c434b; }
.fragile { border: 1px dashed; border-radius: 99px; padding: 0 7px; font-size: .78rem; }
.context { color: var(--soft); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 18px 0 0; padding: 10px 14px;
  background: var(--tint); border-radius: 8px; font-size: .9rem; }
.answers { padding-left: 20px; }
.answers li { margin: 8px 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 10px 20px; margin: 10px 0; }
.facts dt { color: var(--soft); font-size: .82rem; }
.facts dd { margin: 0; }
.glossary { font-size: .92rem; max-width: 90ch; }
.glossary dt { font-weight: 600; margin-top: 8px; }
.glossary dd { margin: 0; }
figure { margin: 22px 0 40px; scroll-margin-top: 12px; }
.scroll { overflow-x: auto; }
img { display: block; width: 100%; height: auto; }
figcaption { margin-top: 8px; max-width: 90ch; }
details { border: 1px solid var(--line); border-radius: 8px; margin: 14px 0; padding: 0 14px; }
summary { cursor: pointer; padding: 10px 0; font-weight: 600; }
details[open] { padding-bottom: 12px; }
details th, details td { padding: 5px 10px 5px 0; }
pre { overflow-x: auto; background: var(--tint); padding: 12px; border-radius: 6px;
  font-size: .8rem; line-height: 1.4; }
a { color: #0059a0; }
@media (max-width: 720px) {
  main { padding: 16px 14px 48px; }
  h1 { font-size: 1.35rem; }
  thead { position: absolute; clip-path: inset(50%); height: 1px; width: 1px; overflow: hidden; white-space: nowrap; }
  caption { display: block; }
  table, tbody, tr, td, tbody th { display: block; width: 100% !important; }
  tr { padding: 10px 0; border-bottom: 1px solid var(--line); }
  th, td, details th, details td { border: 0; padding: 3px 0; }
  tbody th { font-weight: 600; }
  td[data-label]::before { content: attr(data-label); display: block; font-size: .75rem; color: var(--soft); }
  details td[data-label]::before { display: inline-block; min-width: 5.5em; }
  .claims .value, .headline .value { white-space: normal; }
  .scroll img { min-width: 640px; }
}
@media print { details { border: 0; } figure { break-inside: avoid; } }
"""
