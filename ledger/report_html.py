"""The auditor's page: one self-contained HTML file. Room: ledger. Spec: docs/ledger.md §13.

Every text that comes from a charter or a record is escaped; the page loads nothing and runs nothing.
It names no clock of ours: the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from .bodies import Codec, MetricId, MetricValue, Reason, Rule
from .dossier import Dossier
from .pooling import pool, pool_groups
from .report import EMPTY, VERIFIED
from .report_signals import signal_section
from .report_style import STYLE
from .story import MemberStory, Result, RoundStory
from .subgroups import part_name
from .svg import Axes, Point, panel
from .words import kind_name, micro, utc

ROUNDS_SHOWN_MAX: Final = 200
ANOMALIES_SHOWN_MAX: Final = 200
_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""


def page(dossier: Dossier) -> str:
    """Return the whole page."""
    title = f"Audit of {dossier.charter.federation}"
    parts = [
        _HEAD,
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        f"<h1>{escape(title)}</h1>",
        *_verdict(dossier),
        *_facts(dossier),
        *_members(dossier),
        *_anomalies(dossier),
        *_rounds(dossier),
        *_metrics(dossier),
        *_statements(dossier),
        *_privacy(dossier),
        *_reputation(dossier),
        *signal_section(dossier.signals, dossier.name),
        *_states(dossier),
        *_limits(dossier),
        *_sources(dossier),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _verdict(dossier: Dossier) -> Iterator[str]:
    report = dossier.report
    good = report.verdict == VERIFIED and not report.missing
    yield f'<div class="verdict{"" if report.verdict == VERIFIED else " failed"}">'
    yield f"<strong>{escape(report.verdict)}</strong> {escape(_verdict_words(dossier))}"
    if not good or report.notes:
        yield "<ul>"
        for finding in report.findings[:ANOMALIES_SHOWN_MAX]:
            yield f"<li>step {finding.step}: {escape(str(finding.error))}</li>"
        for missing in report.missing:
            yield f"<li>Missing evidence: {escape(missing)}</li>"
        for note in report.notes:
            yield f"<li>{escape(note[0].upper() + note[1:])}</li>"
        yield "</ul>"
    yield "</div>"


def _verdict_words(dossier: Dossier) -> str:
    report = dossier.report
    if report.verdict == EMPTY:
        return "there is no record in what was supplied, so nothing was verified."
    if report.findings:
        return f"{len(report.findings)} findings. What follows is only what stands before them."
    if report.quick:
        return "on the quick level: of the signatures only the newest of each log was checked."
    return (
        "Every record is signed by its author, no log has a gap or a second version, and every "
        "aggregation names inputs that exist, with the weights that the charter demands."
    )


def _facts(dossier: Dossier) -> Iterator[str]:
    report = dossier.report
    joined = sum(one.joined_ms is not None for one in dossier.story.members.values())
    merged = sum(any(one.rule != Rule.MOMENTS for one in told.results) for told in _told(dossier))
    share = f"{100 * report.final / report.records:.1f} %" if report.records else "none"
    facts = [
        ("Members", f"{report.members}", f"{joined} have joined"),
        ("Rounds merged", f"{merged}", f"of {dossier.charter.rounds.rounds} in the charter"),
        ("Records", f"{report.records:,}", f"in {len(report.logs)} logs"),
        ("Final", share, f"held by {report.quorum} or more members"),
        ("Liars tolerated", f"{report.tolerated}", f"quorum {report.quorum}"),
    ]
    yield '<dl class="facts">'
    for name, value, note in facts:
        yield f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>"
    yield "</dl>"


def _told(dossier: Dossier) -> list[RoundStory]:
    return [told for _, told in sorted(dossier.story.rounds.items())]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> Iterator[str]:
    """Yield a table; cells are HTML already."""
    yield f'<div class="scroll"><table class="{kind}"><thead><tr>'
    yield "".join(f"<th>{name}</th>" for name in head) + "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"


def _name(dossier: Dossier, member: int) -> str:
    return escape(dossier.name(member))


def _members(dossier: Dossier) -> Iterator[str]:
    yield "<h2>Members</h2>"
    yield (
        '<p class="small">Joining is signing the charter: the first record of a log. Times are what '
        "the authors claimed.</p>"
    )
    final = dossier.final_by_member()
    rows = [
        (
            f"{one.index}",
            f"{escape(one.name)}<span>{escape(one.role)}</span>",
            utc(one.joined_ms)[:16] if one.joined_ms is not None else "not yet",
            _left(one),
            f"{one.contributions}",
            f"{one.metrics}",
            f"{one.records:,}<span>{final.get(one.index, 0):,} final</span>",
            f"{one.last_round}" if one.records else "",
        )
        for one in dossier.story.members.values()
    ]
    head = (
        "#", "Hospital", "Joined (UTC)", "Left", "Contributions", "Evaluations", "Records",
        "Last round",
    )  # fmt: skip
    yield from _table(head, rows, "wide text2")


def _left(one: MemberStory) -> str:
    if one.until_roster is not None:
        return f"removed by roster {one.until_roster}"
    if one.left_ms is not None:
        why = {"DONE": "finished", "LEFT": "left"}.get(one.left_why, one.left_why)
        return f"{utc(one.left_ms)[:16]}<span>{escape(why)}</span>"
    return "no"


def _anomalies(dossier: Dossier) -> Iterator[str]:
    yield "<h2>What to look at</h2>"
    if not dossier.anomalies:
        yield (
            "<p>Nothing unusual: no refused contribution, no disagreeing result, no silent member, "
            "no clock that jumped, no fork.</p>"
        )
        return
    rows = [
        (
            escape(one.name),
            "" if one.round is None else f"{one.round}",
            escape(one.text),
        )
        for one in dossier.anomalies[:ANOMALIES_SHOWN_MAX]
    ]
    yield from _table(("What", "Round", "Details"), rows, "text1 text3 wrap3")
    if len(dossier.anomalies) > ANOMALIES_SHOWN_MAX:
        left = len(dossier.anomalies) - ANOMALIES_SHOWN_MAX
        yield f'<p class="small">{left} more stand in the JSON file.</p>'


def _rounds(dossier: Dossier) -> Iterator[str]:
    yield "<h2>Rounds</h2>"
    told = _told(dossier)
    if not told:
        yield "<p>No round has begun.</p>"
        return
    yield (
        '<p class="small">Contributors with their weight in the merged model, from the samples that '
        "each claimed and the charter's rule; who was left out and why; the merged model's digest and "
        "how many members got the same one.</p>"
    )
    rows = []
    for one in told[-ROUNDS_SHOWN_MAX:]:
        rows += list(_round_rows(dossier, one))
    head = ("Round", "Contributors and weights", "Left out", "Result", "Agreed by", "State")
    yield from _table(head, rows, "rounds")
    if len(told) > ROUNDS_SHOWN_MAX:
        left = len(told) - ROUNDS_SHOWN_MAX
        yield f'<p class="small">The {left} rounds before stand in the JSON file.</p>'


def _round_rows(dossier: Dossier, told: RoundStory) -> Iterator[tuple[str, ...]]:
    label = f"{told.number}"
    for result in sorted(told.results, key=lambda one: (one.rule, -len(one.members))):
        what = "means and spreads" if result.rule == Rule.MOMENTS else ""
        yield (
            label + (f"<span>{what}</span>" if what else ""),
            ", ".join(
                _input(dossier, result, one.author, one.weight_micro) for one in result.inputs
            ),
            ", ".join(
                f"{_name(dossier, author)} ({' or '.join(_reasons(reasons))})"
                for author, reasons in sorted(result.left_out.items())
            )
            or "nobody",
            f"<code>{result.digest.hex()[:16]}</code>",
            f"{len(result.members)} of {dossier.report.members}",
            dossier.state_of(result),
        )
    if not told.results:
        offered = ", ".join(_name(dossier, one.place.author) for one in told.offers)
        yield label, offered or "nobody", "", "none", "", ""


def _input(dossier: Dossier, result: Result, author: int, weight_micro: int) -> str:
    name = _name(dossier, author)
    return (
        name if result.rule == Rule.MOMENTS else f"{name}&nbsp;{weight_micro / 10_000:.1f}&nbsp;%"
    )


def _reasons(reasons: Iterable[int]) -> list[str]:
    return [Reason(one).name.lower().replace("_", " ") for one in sorted(reasons)]


def _metrics(dossier: Dossier) -> Iterator[str]:
    yield "<h2>How the model does in each hospital</h2>"
    series = dossier.metric_series()
    if not series:
        yield "<p>No evaluation was recorded.</p>"
        return
    main = dossier.main_metric(series)
    yield (
        f'<p class="small">{MetricId(main).name} of the merged model on each hospital\'s own held-out '
        "patients, round by round; the band is the interval that the hospital recorded. Each hospital "
        "measured this itself and signed it; nobody can check it without its data.</p>"
    )
    panels = {
        member: [
            Point(round_, one.micro / 1e6, one.low_micro / 1e6, one.high_micro / 1e6)
            for round_, one in values
        ]
        for member, values in sorted(series[main].items())
    }
    yield from _panels(dossier, panels, MetricId(main).name)
    yield f'<p class="small">The last round that each hospital evaluated (n: cases, {_buckets(dossier)}):</p>'
    metrics = sorted(series)
    rows = []
    for member in sorted({one for by_member in series.values() for one in by_member}):
        cells = []
        for metric in metrics:
            values = series[metric].get(member)
            if not values:
                cells.append("")
                continue
            cells.append(_interval(values[-1][1]))
        last = max(series[metric][member][-1][0] for metric in metrics if member in series[metric])
        rows.append((_name(dossier, member), f"{last}", *cells))
    newest = dossier.newest_metrics()
    if newest is not None:
        pooled = pool(newest[1].metrics.values())
        cells = [_interval(pooled[metric]) if metric in pooled else "" for metric in metrics]
        rows.append(("<b>All, by patients</b>", f"{newest[0]}", *cells))
    head = ("Hospital", "Round", *(MetricId(metric).name for metric in metrics))
    yield from _table(head, rows)
    yield from _subgroups(dossier)


def _interval(one: MetricValue) -> str:
    return (
        f"{one.micro / 1e6:.3f}<span>{one.low_micro / 1e6:.3f} to {one.high_micro / 1e6:.3f}"
        f", n {one.count:,}</span>"
    )


def _subgroups(dossier: Dossier) -> Iterator[str]:
    newest = dossier.newest_metrics()
    parts = pool_groups(newest[1].groups.values()) if newest else {}
    if newest is None or not parts:
        return
    metrics = sorted({metric for values in parts.values() for metric in values})
    least = dossier.charter.privacy.group_count_min
    yield (
        f'<p class="small">Parts of the patients in round {newest[0]}, over the hospitals that published them: '
        f"none with fewer than {least} patients, cases or non-cases in a hospital, and none that would "
        "give such a one away.</p>"
    )
    rows = [
        (
            escape(part_name(dossier.charter.schema, *part)),
            *(_interval(values[metric]) if metric in values else "" for metric in metrics),
        )
        for part, values in parts.items()
    ]
    yield from _table(("Patients", *(MetricId(metric).name for metric in metrics)), rows)


def _buckets(dossier: Dossier) -> str:
    bucketed = dossier.charter.privacy.sample_count == "bucket"
    return "rounded down to a power of two" if bucketed else "as recorded"


def _panels(dossier: Dossier, panels: dict[int, list[Point]], what: str) -> Iterator[str]:
    axes = Axes.around(list(panels.values()))
    yield '<div class="panels">'
    for member, points in panels.items():
        name = dossier.name(member)
        chart = panel(points, axes, title=f"{what} of {name} over rounds")
        yield (
            f"<figure><figcaption>{escape(name)} <b>{points[-1].value:.3f}</b></figcaption>"
            f"{chart}</figure>"
        )
    yield "</div>"


def _statements(dossier: Dossier) -> Iterator[str]:
    stated = dossier.statements()
    if not stated:
        return
    yield "<h2>Releases, withdrawals and anchors</h2>"
    yield (
        '<p class="small">What hospitals stated beside the rounds, and signed. That a released model '
        "is a round's, and that a withdrawal was heeded, is not checked.</p>"
    )
    names = {one.index: one.name for one in dossier.story.members.values()}
    rows = [
        (
            kind_name(one.kind),
            f"{one.round}",
            escape(f"{names[one.place.author]}: {one.text} (record {one.place})"),
        )
        for one in stated[:ANOMALIES_SHOWN_MAX]
    ]
    yield from _table(("What", "Round", "Details"), rows, "text1 text3 wrap3")
    if len(stated) > ANOMALIES_SHOWN_MAX:
        left = len(stated) - ANOMALIES_SHOWN_MAX
        yield f'<p class="small">{left} more stand in the JSON file.</p>'


def _privacy(dossier: Dossier) -> Iterator[str]:
    yield "<h2>Privacy budget</h2>"
    spent = [one for one in dossier.story.members.values() if one.epsilon_micro]
    if not spent:
        yield (
            "<p>None was claimed: no contribution names a privacy mechanism, and every ε on the ledger "
            "is 0. Updates were sent as they were trained; what they reveal about patients is not "
            "bounded by anything on this ledger.</p>"
        )
        return
    rows = [
        (
            escape(one.name),
            micro(one.epsilon_micro) if one.epsilon_micro else "none was claimed",
            f"10<sup>−{one.delta_exponent}</sup>" if one.epsilon_micro else "",
            f"{one.mechanism}" if one.epsilon_micro else "",
        )
        for one in dossier.story.members.values()
    ]
    yield (
        '<p class="small">The ε that each hospital says it has spent in all, with its last '
        "contribution. A claim: the noise cannot be seen from outside.</p>"
    )
    yield from _table(("Hospital", "ε spent", "δ", "Mechanism"), rows)


def _reputation(dossier: Dossier) -> Iterator[str]:
    yield "<h2>Reputation</h2>"
    if dossier.reputation is None or not dossier.reputation.rounds:
        yield f"<p>{escape(dossier.reputation_note)}</p>"
        return
    yield (
        '<p class="small">Replayed from the records, from 0 to 1; everyone starts at 0.5. It never '
        "removes anyone, and it under-credits hospitals with rare patients. "
        "<code>swarm-audit report --json</code> has every vote.</p>"
    )
    panels: dict[int, list[Point]] = {}
    for outcome in dossier.reputation.rounds:
        for line in outcome.members:
            value = line.after_micro / 1e6
            panels.setdefault(line.member, []).append(Point(outcome.round, value, value, value))
    yield from _panels(dossier, dict(sorted(panels.items())), "reputation")


def _states(dossier: Dossier) -> Iterator[str]:
    report = dossier.report
    yield "<h2>States of the records</h2>"
    yield (
        f'<p class="small">SIGNED: its author signed it and its log is whole. FINAL: {report.quorum} '
        "members have also acknowledged it or a later one of its log, so it cannot be taken back as "
        f"long as at most {report.tolerated} lie. {escape(dossier.anchored_note)}</p>"
    )
    names = dossier.state_names()
    rows = [
        (kind, *(f"{states.get(state, 0):,}" for state in names), f"{sum(states.values()):,}")
        for kind, states in report.counts.items()
    ]
    yield from _table(("Kind", *(one.upper() for one in names), "All"), rows)


def _limits(dossier: Dossier) -> Iterator[str]:
    yield '<h2 id="limits">What this evidence does not prove</h2><ul>'
    for text in dossier.limits():
        yield f"<li>{escape(text)}</li>"
    yield "</ul>"


def _sources(dossier: Dossier) -> Iterator[str]:
    report, charter = dossier.report, dossier.charter
    yield "<h2>What was looked at</h2>"
    yield f"<p>Charter digest <code>{escape(report.charter_digest)}</code><br>"
    yield f"Supplied by the auditor: {escape(', '.join(report.supplied))}<br>"
    rule = f"{charter.aggregation.rule}, weights by {charter.aggregation.weighting}"
    cap = charter.aggregation.share_cap
    yield f"Model {escape(charter.model.name)}; merged by {escape(rule)}, share cap {cap:g}</p>"
    head = ("Log", "Hospital", "Records", "Final up to", "Anchored", "Timestamped", "Head")
    rows = [
        (
            f"{log.author}/{log.epoch}",
            _name(dossier, log.author),
            f"{log.records:,}",
            f"{log.final_seq}" if log.final_seq >= 0 else "none",
            f"{log.anchored:,}",
            f"{log.timestamped:,}",
            f"<code>{log.head_id.hex()}</code>",
        )
        for log in report.logs
    ]
    yield from _table(head, rows, "text2 heads")
    codecs = sorted({one.codec for told in _told(dossier) for one in told.offers})
    if codecs:
        yield f'<p class="small">Codecs: {", ".join(Codec(one).name for one in codecs)}.</p>'
