"""``swarm-audit reputation``: parse, call, map. Room: ledger. Spec: docs/reputation.md §8."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .errors import ConfigError, VerificationError

_EXAMPLES: Final = """\
examples:
  swarm-audit reputation st-anna/ mercy/ --charter charter.toml
  swarm-audit reputation st-anna/ --member 2
  swarm-audit reputation st-anna/ --json > reputation.json
  swarm-audit verify mercy/ --reputation reputation.json

exit status:
  0  replayed from verified records
  1  refuted
  2  could not do it: bad usage, or something cannot be read
  3  replayed, but evidence is missing (named)
"""


def add_command(commands: Any, digest: Callable[[str], str], jobs: Callable[[str], int]) -> None:
    """Add the command; it sets ``run``, which takes the options and returns the status."""
    text = "replay reputation from the records, with the evidence behind every number"
    parser = commands.add_parser(
        "reputation", help=text, description=text[0].upper() + text[1:] + ".", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("bundles", metavar="BUNDLE", nargs="+", type=Path, help="a directory")
    parser.add_argument("--charter", metavar="FILE", type=Path, help="your copy of it")
    parser.add_argument(
        "--charter-digest", metavar="HEX", type=digest, help="from a trusted channel"
    )
    parser.add_argument("--member", metavar="N", type=int, help="every round of this one")
    parser.add_argument("--jobs", metavar="N", type=jobs, default=1, help="processes")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_reputation)


def _reputation(options: argparse.Namespace) -> int:
    from .audit_reputation import look_at_accepted
    from .cli_read import trusted, warn
    from .reading import opened_ledger
    from .reputation_report import as_json, as_lines
    from .signal_report import as_json as signals_json
    from .signal_report import doubt_lines, timeline_lines
    from .verify import audit_bundles

    audited = audit_bundles(options.bundles, *trusted(options), jobs=options.jobs)
    roster = opened_ledger(audited.opened)
    names = {one.index: one.name for one in roster.members}
    if options.member is not None and options.member not in names:
        raise ConfigError(f"--member {options.member}: members are 0 to {len(names) - 1}")
    if audited.audit is None:
        raise ConfigError("the bundles hold nothing that can be read")
    warn(audited.report.first_line())
    try:
        insight = look_at_accepted(audited.audit, roster)
    except VerificationError as error:
        warn(f"REFUTED: {error}")
        return 1
    if options.json:
        everything = {**as_json(insight.reputation), "signals": signals_json(insight.signals)}
        print(json.dumps(everything, indent=1))  # noqa: T201
        return audited.report.exit_status
    chosen = [one for one in insight.signals if options.member in (None, one.member)]
    lines = [*as_lines(insight.reputation, names, member=options.member)]
    if options.member is not None:
        lines += [line for one in chosen for line in timeline_lines(one)]
    for line in (*lines, *doubt_lines(chosen, names)):
        print(line)  # noqa: T201
    return audited.report.exit_status
