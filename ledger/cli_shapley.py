"""``swarm-audit shapley``: parse, call, map. Room: ledger. Spec: docs/free-riders.md §5."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .errors import ConfigError

_EXAMPLES: Final = """\
examples:
  swarm-audit shapley st-anna/ --recompute st-anna.payloads/
  swarm-audit shapley st-anna/ mercy/ --recompute all.payloads/ --charter charter.toml --json

An ESTIMATE (GTG-Shapley, seeded from the ledger: the same for everybody with the same payloads) of how much
nearer each member's updates brought the model to where the federation ended. It proves nothing of a member,
and decides nothing.

exit status:
  0  estimated from verified records
  1  refuted
  2  could not do it: bad usage, or payloads are missing
  3  estimated, but evidence is missing (named)
"""
_HEAD: Final = (
    "ESTIMATE of each member's share of the way to the model of round {} (not of its honesty)"
)


def add_command(commands: Any, digest: Callable[[str], str], jobs: Callable[[str], int]) -> None:
    """Add the command; it sets ``run``, which takes the options and returns the status."""
    text = "estimate what each member's updates brought, from stored payloads (Shapley values)"
    parser = commands.add_parser(
        "shapley", help=text, description=text[0].upper() + text[1:] + ".", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("bundles", metavar="BUNDLE", nargs="+", type=Path, help="a directory")
    parser.add_argument(
        "--recompute", metavar="DIR", type=Path, required=True,
        help="payload files, as `swarm-node export DIR --payloads` writes them",
    )  # fmt: skip
    parser.add_argument("--charter", metavar="FILE", type=Path, help="your copy of it")
    parser.add_argument(
        "--charter-digest", metavar="HEX", type=digest, help="from a trusted channel"
    )
    parser.add_argument("--jobs", metavar="N", type=jobs, default=1, help="processes")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_shapley)


def _shapley(options: argparse.Namespace) -> int:
    from .cli_read import trusted, warn
    from .reading import opened_ledger
    from .recompute import load_recomputation
    from .shapley import estimate, load_estimator
    from .verify import audit_bundles

    estimator, digests = load_estimator(), load_recomputation()
    audited = audit_bundles(options.bundles, *trusted(options), jobs=options.jobs)
    roster = opened_ledger(audited.opened)
    if audited.audit is None:
        raise ConfigError("the bundles hold nothing that can be read")
    warn(audited.report.first_line())
    found = estimate(audited.audit, roster, options.recompute, estimator, digests)
    names = {one.index: one.name for one in roster.members}
    for what, numbers in (
        ("skipped: a payload or base is missing, or an update was late", found.skipped),
        ("not converged: their errors are larger", found.not_converged),
    ):
        if numbers:
            warn(f"rounds {', '.join(map(str, numbers))} {what}")
    if options.json:
        document = {
            "kind": "estimate", "method": "GTG-Shapley", "goal_round": found.goal_round,
            "members": [
                {"member": one.member, "name": names[one.member], "share": one.share,
                 "standard_error": one.error, "rounds": one.rounds}
                for one in found.members
            ],
            "rounds": [
                {"round": number, "shares": {str(member): share for member, share in of.items()}}
                for number, of in found.rounds.items()
            ],
            "skipped": found.skipped, "not_converged": found.not_converged,
        }  # fmt: skip
        print(json.dumps(document, indent=1))  # noqa: T201
        return audited.report.exit_status
    print(_HEAD.format(found.goal_round))  # noqa: T201
    for one in sorted(found.members, key=lambda one: -one.share):
        line = f"{one.share:+8.4f} ± {one.error:.4f}  {names[one.member]} ({one.rounds} rounds)"
        print(line)  # noqa: T201
    return audited.report.exit_status
