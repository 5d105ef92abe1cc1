"""``swarm-audit show``, ``log``, ``diff`` and ``report``: parse, call, map. Room: ledger.

Spec: docs/ledger.md §13. The work is done elsewhere, imported when it is needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigError, VerificationError

if TYPE_CHECKING:
    from .reading import Log, Paths
    from .record import Record, Verified
    from .roster import Roster
    from .verify import Brought, Opened

_EXAMPLES: Final = """\
examples:
  swarm-audit show 2/0/17 st-anna/ mercy/ --charter charter.toml
  swarm-audit show 9f3c2a st-anna/ --json
  swarm-audit log st-anna/ --author 2 --kind contribution
  swarm-audit log st-anna/ --round 7 --json | jq .time_ms
  swarm-audit diff st-anna/ mercy/
  swarm-audit report st-anna/ mercy/ --charter charter.toml --charter-digest 3f8a…c1 -o audit.html

exit status:
  0  done; report and show: verified; diff: the same
  1  refuted; diff: they differ
  2  could not do it: bad usage, or something cannot be read
  3  report and show: verified, but evidence is missing (named)
"""


def add_commands(commands: Any, digest: Callable[[str], str], jobs: Callable[[str], int]) -> None:
    """Add the four commands; each sets ``run``, which takes the options and returns the status."""

    def command(name: str, text: str, run: Callable[[argparse.Namespace], int]) -> Any:
        parser = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        parser.set_defaults(run=run)
        return parser

    show = command("show", "print one record, who acknowledged it and its state", _show)
    show.add_argument("record", metavar="RECORD", help="AUTHOR/EPOCH/SEQ, or the start of its id")
    log = command("log", "print one line a record; each is opened, but not the chain checked", _log)
    log.add_argument("--author", metavar="N", type=int, help="of this member only")
    log.add_argument("--round", metavar="N", type=int, help="of this round only")
    log.add_argument("--kind", metavar="KIND", type=_kind, help="name or number")
    report = command("report", "write one HTML page (and JSON) for people", _report)
    report.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="HTML")
    for parser in (show, log, report):
        parser.add_argument("bundles", metavar="BUNDLE", nargs="+", type=Path, help="a directory")
        parser.add_argument("--charter", metavar="FILE", type=Path, help="your copy of it")
        parser.add_argument(
            "--charter-digest", metavar="HEX", type=digest, help="from a trusted channel"
        )
    for parser in (show, report):
        parser.add_argument("--jobs", metavar="N", type=jobs, default=1, help="processes")
        add_brought(parser)
    diff = command("diff", "say what one bundle has and the other lacks", _diff)
    diff.add_argument("bundles", metavar="BUNDLE", nargs=2, type=Path, help="two directories")
    for parser in (show, log, diff):
        parser.add_argument("--json", action="store_true", help="print JSON (log: one line each)")
    report.add_argument("--json", metavar="FILE", type=Path, help="write the same as JSON too")


def add_brought(parser: argparse.ArgumentParser) -> None:
    """Add what an auditor may bring besides bundles and charter."""
    parser.add_argument(
        "--pin", metavar="FILE", type=Path, action="append", default=[],
        help="a checkpoint that you kept from before; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--token", metavar="FILE", type=Path, action="append", default=[],
        help="an RFC 3161 time stamp of a checkpoint; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--recompute", metavar="DIR", type=Path,
        help="payload files: recompute every merge bit for bit (needs the learning extra)",
    )  # fmt: skip
    parser.add_argument(
        "--reputation", metavar="FILE", type=Path,
        help="a claimed reputation (swarm-audit reputation --json): replay and compare",
    )  # fmt: skip


def brought(options: argparse.Namespace) -> Brought:
    """Return what was brought. Raises ConfigError if a claim is none."""
    from .audit_reputation import read_claim
    from .verify import Brought

    claimed = None if options.reputation is None else read_claim(options.reputation)
    return Brought(
        pins=options.pin, tokens=options.token, payloads=options.recompute, reputation=claimed
    )


def _kind(text: str) -> int:
    from .bodies import EXTENSION_MIN, Kind

    if text.isascii() and text.isdigit():
        number = int(text[:6])
        if number in Kind.__members__.values() or EXTENSION_MIN <= number < 1 << 16:
            return number
    kind = Kind.__members__.get(text.upper().replace("-", "_"))
    if kind is None:
        names = ", ".join(name.lower() for name in Kind.__members__)
        raise argparse.ArgumentTypeError(f"kinds are {names}, or {EXTENSION_MIN} and up")
    return int(kind)


def trusted(options: argparse.Namespace) -> tuple[bytes | None, str | None]:
    """Return what the auditor brought: the charter's bytes and its digest."""
    data = None if options.charter is None else read_charter(options.charter)
    return data, options.charter_digest


def read_charter(path: Path) -> bytes:
    """Return the auditor's copy of the charter. Raises ConfigError: one line, what to give."""
    from .charter import CHARTER_BYTES_MAX

    try:
        with path.open("rb") as file:
            return file.read(CHARTER_BYTES_MAX + 1)
    except OSError as error:
        what = "the charter.toml in it" if path.is_dir() else "your copy of charter.toml"
        raise ConfigError(f"charter {path}: {error.strerror or error}; give {what}") from None


def _print(text: str) -> None:
    print(text)  # noqa: T201


def warn(text: str) -> None:
    """Say something beside the result."""
    print(f"swarm-audit: {text}", file=sys.stderr)  # noqa: T201


def _show(options: argparse.Namespace) -> int:
    from .reading import find, first_covers, opened_ledger, record_at
    from .verify import audit_bundles

    audited = audit_bundles(
        options.bundles, *trusted(options), jobs=options.jobs, brought=brought(options)
    )
    roster = opened_ledger(audited.opened)
    audit = audited.audit
    paths, counts = (audit.readable(), audit.counts()) if audit is not None else ({}, {})
    place = find(paths, options.record)
    record = record_at(paths, place, roster)
    accepted = {(one.author, one.epoch): one for one in audited.report.logs}
    log = accepted[place.author, place.epoch]
    state = log.state_of(place.seq)
    covers = first_covers(paths, place, roster, counts)
    names = {one.index: one.name for one in roster.members}
    if options.json:
        _print(json.dumps(_shown_json(record, state, covers, audited.report.to_json()), indent=2))
    else:
        _print("\n".join(_shown_lines(record, state, covers, names, roster)))
        _print(f"audit of the bundles: {audited.report.first_line()}")
    return audited.report.exit_status


def _shown_json(
    record: Verified[Record],
    state: str,
    covers: dict[int, Verified[Record]],
    report: dict[str, Any],
) -> dict[str, Any]:
    from .words import as_json

    held = [
        {"member": member, "author": one.value.author, "epoch": one.value.epoch,
         "seq": one.value.seq, "id": one.id.hex(), "time_ms": one.value.time_ms}
        for member, one in sorted(covers.items())
    ]  # fmt: skip
    audit = {key: report[key] for key in ("verdict", "exit_status", "level", "missing")}
    return {**as_json(record), "state": state, "acked_by": held, "audit": audit}


def _shown_lines(
    record: Verified[Record],
    state: str,
    covers: dict[int, Verified[Record]],
    names: dict[int, str],
    roster: Roster,
) -> Iterator[str]:
    from .roster import quorum
    from .words import body_lines, header_lines, kind_name, utc

    value = record.value
    yield (
        f"{kind_name(value.kind)} {value.author}/{value.epoch}/{value.seq} "
        f'of "{names[value.author]}", round {value.round}: {state}'
    )
    for name, text in header_lines(record, names):
        yield f"  {name:<20} {text}"
    yield "body"
    for name, text in body_lines(value, names):
        yield f"  {name:<20} {text}"
    holders = len(covers.keys() - {value.author}) + 1
    members = len(roster.active_at(value.roster))
    yield (
        f"acknowledged by (with its author {holders}; {quorum(members)} of the {members} members of "
        f"roster {value.roster} make it final)"
    )
    for member, one in sorted(covers.items()):
        is_of = one.value
        yield (
            f'  {member} "{names[member]}" first in {is_of.author}/{is_of.epoch}/{is_of.seq}, '
            f"round {is_of.round}, {utc(is_of.time_ms)}"
        )
    if not covers:
        yield "  nobody in these bundles"


def _log(options: argparse.Namespace) -> int:
    from .reading import opened_ledger, read_log
    from .verify import open_bundles
    from .words import as_json

    opened = open_bundles(options.bundles, *trusted(options))
    roster = opened_ledger(opened)
    names = {one.index: one.name for one in roster.members}
    status = 0
    for log in _wanted_logs(opened, options.author):
        try:
            for record in read_log(opened.paths[log], roster):
                value = record.value
                if options.round not in (None, value.round):
                    continue
                if options.kind not in (None, value.kind):
                    continue
                _print(json.dumps(as_json(record)) if options.json else _line(record, names))
        except VerificationError as error:
            warn(f"REFUTED: {error}; the rest of this log is not shown")
            status = 1
    for finding in opened.findings:
        warn(f"REFUTED: step {finding.step}: {finding.error}")
        status = 1
    return status


def _wanted_logs(opened: Opened, author: int | None) -> list[Log]:
    paths: Paths = opened.paths
    if author is not None and author not in {log[0] for log in paths}:
        raise ConfigError(f"--author {author}: no bundle has a log of that member")
    return [log for log in sorted(paths) if author in (None, log[0])]


def _line(record: Verified[Record], names: dict[int, str]) -> str:
    from .words import kind_name, summary, utc

    value = record.value
    place = f"{value.author}/{value.epoch}/{value.seq}"
    return (
        f"{utc(value.time_ms)[:19]}  round {value.round:<4} {place:<12} {record.id.hex()[:12]}  "
        f"{kind_name(value.kind):<17} {names[value.author]}: {summary(value)}"
    ).rstrip(": ")


def _diff(options: argparse.Namespace) -> int:
    from .diff import diff_bundles

    diff = diff_bundles(*options.bundles)
    _print(json.dumps(diff.to_json(), indent=2) if options.json else "\n".join(diff.lines()))
    return 0 if diff.same else 1


def _report(options: argparse.Namespace) -> int:
    from .dossier import compile_dossier
    from .report_html import page
    from .verify import audit_bundles

    audited = audit_bundles(
        options.bundles, *trusted(options), jobs=options.jobs, brought=brought(options)
    )
    dossier = compile_dossier(audited)
    options.output.write_text(page(dossier), encoding="utf-8")
    if options.json is not None:
        text = json.dumps(dossier.to_json(), indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    _print(audited.report.first_line())
    warn(f"wrote {options.output}" + (f" and {options.json}" if options.json else ""))
    return audited.report.exit_status
