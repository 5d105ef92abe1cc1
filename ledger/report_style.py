"""The look of the auditor's page, on a screen and on paper. Room: ledger."""

from typing import Final

STYLE: Final = """
:root { --ink: #222; --muted: #5f5f5f; --line: #d9d9d9; --data: #0072b2; --bad: #a32a00; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1000px; padding: 36px 28px 64px; color: var(--ink);
  background: #fff; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue",
  "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }
p { margin: 0 0 12px; max-width: 72ch; }
.small { font-size: 13px; color: var(--muted); max-width: 96ch; }
.verdict { margin: 20px 0 0; padding: 12px 16px; border: 1px solid var(--ink);
  border-left-width: 6px; }
.verdict strong { font-size: 17px; margin-right: 6px; }
.verdict ul { margin: 8px 0 0; padding-left: 20px; }
.verdict li { overflow-wrap: anywhere; max-width: 100ch; }
.verdict.failed { border-color: var(--bad); }
.verdict.failed strong { color: var(--bad); }
.facts { display: flex; flex-wrap: wrap; gap: 14px 0; margin: 22px 0 0; }
.facts div { flex: 1 1 0; min-width: 130px; padding-right: 16px; }
.facts dt { font-size: 13px; color: var(--muted); }
.facts dd { margin: 0; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.facts small { display: block; font-size: 13px; line-height: 1.35; color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 14px; margin-bottom: 14px; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: baseline; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-weight: 600; font-size: 13px; color: var(--muted); vertical-align: bottom;
  border-bottom: 1px solid var(--ink); }
td span { display: block; font-size: 12px; color: var(--muted); }
.text2 th:nth-child(2), .text2 td:nth-child(2) { text-align: left; }
.text3 th:nth-child(3), .text3 td:nth-child(3) { text-align: left; }
.wrap3 td:nth-child(3) { white-space: normal; overflow-wrap: anywhere; width: 75%; }
.rounds th, .rounds td { text-align: left; }
.rounds td:nth-child(2) { white-space: normal; width: 46%; }
.rounds td:nth-child(3) { white-space: normal; min-width: 9em; }
.heads code { font-size: 11px; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr));
  gap: 12px 18px; margin: 12px 0 16px; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: 13px; display: flex; justify-content: space-between; gap: 8px; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 10px; fill: var(--muted); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .band { fill: var(--data); opacity: 0.18; }
svg .line { fill: none; stroke: var(--data); stroke-width: 1.6; }
svg .dot { fill: var(--data); }
code { font-family: ui-monospace, "SF Mono", Consolas, "Liberation Mono", monospace;
  font-size: 13px; overflow-wrap: anywhere; }
ul { padding-left: 20px; margin: 0 0 12px; }
li { margin-bottom: 5px; max-width: 80ch; }
* { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
@media (max-width: 640px) { body { padding: 20px 16px; } }
@media print {
  @page { margin: 14mm 12mm; }
  body { padding: 0; max-width: none; font-size: 11.5px; }
  table { font-size: 10.5px; }
  thead th, .small, .facts dt, .facts small, figcaption { font-size: 10px; }
  td span { font-size: 9.5px; }
  .facts dd { font-size: 18px; }
  thead { display: table-header-group; }
  tr, figure, .verdict { break-inside: avoid; }
  h2 { break-after: avoid; margin-top: 22px; }
  th, td { padding: 3px 8px 3px 0; }
  .scroll { overflow: visible; }
  .heads code { font-size: 8px; }
  .panels { grid-template-columns: repeat(4, 1fr); }
}
"""
