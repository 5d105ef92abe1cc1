"""``swarm-audit prove``, ``check`` and ``policy``: parse, call, map. Room: ledger.

Spec: docs/checkpoints.md §10. The work is :mod:`ledger.prove`'s, imported when it is needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigError, VerificationError

if TYPE_CHECKING:
    from .roster import Roster

_EXAMPLES: Final = """\
examples:
  swarm-audit prove bundle/ --record 2/0/17 --checkpoint bundle/checkpoints/0002-0000.txt
  swarm-audit prove bundle/ --record 9f3c…e1 --checkpoint old.txt -o r17.tlog-proof
  swarm-audit prove bundle/ --consistency old.checkpoint --checkpoint new.checkpoint
  swarm-audit check r17.tlog-proof --charter charter.toml --charter-digest 3f8a…c1
  swarm-audit check r17.tlog-proof --charter charter.toml --updates bundle/ --json
  swarm-audit policy charter.toml > federation.policy

Checkpoints that a quorum has cosigned lie in a bundle, as checkpoints/AAAA-EEEE.txt.

exit status:
  0  made, or verified
  1  refuted: log, checkpoint or proof is not what it should be
  2  could not do it: bad usage, or something cannot be read
  3  made, or verified, but evidence is missing (named on standard error)
"""


HINTS: Final = {
    "nobody signed the checkpoint": ": a proof in the making, which no one accepts; give a signed one "
    "(--checkpoint BUNDLE/checkpoints/AAAA-EEEE.txt)",
}
"""What to do about what is missing."""


def add_commands(commands: Any, digest: Callable[[str], str]) -> None:
    """Add the three commands; each sets ``run``, which takes the options and returns the status."""

    def command(name: str, text: str, run: Callable[[argparse.Namespace], int]) -> Any:
        parser = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        parser.set_defaults(run=_refusing(run))
        return parser

    prove = command("prove", "make a proof file about one log of a bundle", _prove)
    prove.add_argument("bundle", metavar="BUNDLE", type=Path, help="a directory")
    what = prove.add_mutually_exclusive_group(required=True)
    what.add_argument("--record", metavar="ID|A/E/S", help="prove this record: id, or its place")
    what.add_argument(
        "--consistency", metavar="OLD", type=Path, help="prove that the log extends this checkpoint"
    )
    prove.add_argument("--checkpoint", metavar="FILE", type=Path, help="the head to prove under")
    prove.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: standard output")
    check = command("check", "check a .tlog-proof that brings its record along", _check)
    check.add_argument("proof", metavar="PROOF", type=Path, help="a file")
    check.add_argument("--charter", metavar="FILE", type=Path, required=True, help="your copy")
    for parser in (prove, check):
        parser.add_argument(
            "--charter-digest", metavar="HEX", type=digest, help="from a trusted channel"
        )
    policy = command("policy", "print the roster as a C2SP tlog-policy for other tools", _policy)
    policy.add_argument("charter", metavar="CHARTER", type=Path, help="charter.toml")
    for parser in (check, policy):
        parser.add_argument(
            "--updates", metavar="BUNDLE", type=Path,
            help="a bundle, for the members that joined, left or changed keys since the charter",
        )  # fmt: skip
    for parser in (prove, check, policy):
        parser.add_argument("--json", action="store_true", help="print JSON")


def _refusing(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Give a refusal its own status; what could not be done is the caller's to map."""

    def wrapped(options: argparse.Namespace) -> int:
        from .toml_strict import CharterError

        try:
            return run(options)
        except (VerificationError, CharterError) as error:
            print(f"REFUTED: {error}", file=sys.stderr)  # noqa: T201
            return 1

    return wrapped


def _prove(options: argparse.Namespace) -> int:
    from .prove import prove_consistency, prove_inclusion

    digest = options.charter_digest
    head = None if options.checkpoint is None else _read(options.checkpoint)
    if options.record is not None:
        made = prove_inclusion(options.bundle, options.record, checkpoint=head, digest_hex=digest)
    else:
        old = _read(options.consistency)
        made = prove_consistency(options.bundle, old, checkpoint=head, digest_hex=digest)
    if options.output is not None:
        options.output.write_bytes(made.data)
    if options.json:
        tree = made.checkpoint
        _print_json(
            proof=made.data.decode(), origin=tree.origin, size=tree.size, root=tree.root.hex(),
            missing=list(made.missing),
        )  # fmt: skip
    elif options.output is None:
        sys.stdout.write(made.data.decode())
    return _status(made.missing)


def _check(options: argparse.Namespace) -> int:
    from .prove import check_proof

    rosters = _rosters(options, options.charter_digest)
    roster = rosters[0]
    try:
        record, opened, missing = check_proof(_read(options.proof), rosters=rosters)
    except VerificationError as error:
        if error.code != "E_ROSTER_UNKNOWN":
            raise
        raise ConfigError(
            f"{options.proof}: {error.message}, and only versions {error.expected} are known here: "
            "give a bundle that has the later updates (--updates BUNDLE)"
        ) from None
    if options.charter_digest is None:
        missing = (*missing, "charter digest (--charter-digest) was not supplied")
    from .words import as_json, kind_name

    is_of, tree = record.value, opened.checkpoint
    place = f"{is_of.author}/{is_of.epoch}/{is_of.seq}"
    if options.json:
        _print_json(
            verdict="VERIFIED", **as_json(record), origin=tree.origin, size=tree.size,
            root=tree.root.hex(), missing=list(missing),
            cosigned={str(member): time_s for member, time_s in sorted(opened.cosigned_s.items())},
        )  # fmt: skip
        return _status(missing)
    lines = [
        f'VERIFIED: record {place} is in the log of "{roster.member(is_of.author).name}"',
        f"  id {record.id.hex()}",
        f"  {kind_name(is_of.kind)}, round {is_of.round}, written {_utc(is_of.time_ms // 1000)} (a claim)",
        f"  checkpoint of {tree.size} records, root {tree.root.hex()}",
        *(_cosigner(roster, *one) for one in sorted(opened.cosigned_s.items())),
    ]
    print("\n".join(lines))  # noqa: T201
    return _status(missing)


def _policy(options: argparse.Namespace) -> int:
    from .checkpoint import policy

    text = policy(_rosters(options)[0])
    if options.json:
        _print_json(policy=text)
    else:
        sys.stdout.write(text)
    return 0


def _print_json(**values: Any) -> None:
    print(json.dumps(values, indent=2))  # noqa: T201


def _rosters(options: argparse.Namespace, digest_hex: str | None = None) -> Sequence[Roster]:
    """Return the charter's roster, and those of the updates that a bundle has."""
    from .bundle import read_bundle
    from .cli_read import read_charter
    from .prove import rosters_of

    bundle = None if options.updates is None else read_bundle(options.updates)
    return rosters_of(read_charter(options.charter), digest_hex, bundle=bundle)


def _cosigner(roster: Roster, member: int, time_s: int) -> str:
    return f'  cosigned by {member} "{roster.member(member).name}", {_utc(time_s)}'


def _utc(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return f"Unix time {time_s}"


def _status(missing: tuple[str, ...]) -> int:
    for one in missing:
        hint = HINTS.get(one, "")
        print(f"swarm-audit: evidence is missing: {one}{hint}", file=sys.stderr)  # noqa: T201
    return 3 if missing else 0


def _read(path: Path) -> bytes:
    from .tlog_proof import FILE_BYTES_MAX

    limit = max(FILE_BYTES_MAX, 1 << 20)  # a charter's limit is the larger one
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; name another file") from None
    if len(data) > limit:
        raise ConfigError(f"{path}: more than {limit} bytes; name another file")
    return data
