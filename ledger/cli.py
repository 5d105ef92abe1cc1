"""``swarm-audit``: parse, call, map to exit codes. Room: ledger. Spec: docs/ledger.md §10."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final, NoReturn, TextIO

from . import cli_prove, cli_read, cli_reputation, cli_shapley
from .errors import SwarmError

EXIT_CANNOT_CHECK: Final = 2

_EXAMPLES: Final = """\
examples:
  swarm-audit verify bundle/ --charter charter.toml --charter-digest 3f8a…c1
  swarm-audit verify st-anna/ mercy/ lakeside/ --charter charter.toml --charter-digest 3f8a…c1
  swarm-audit verify bundle/ --json | jq .verdict
  swarm-audit verify bundle/ --charter charter.toml --pin last-year/0002-0000.txt

exit status:
  0  verified
  1  refuted: at least one file of one bundle is not what the ledger demands
  2  could not check: bad usage, or something cannot be read
  3  verified, but evidence is missing (named on the first line); or EMPTY: no record to verify

Give several hospitals' bundles at once: a record that one of them left out is in another.
The charter and its digest must come from outside the bundles, or they vouch for themselves.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    output = _UntilClosed(sys.stdout)
    with redirect_stdout(output), redirect_stderr(_UntilClosed(sys.stderr)):
        try:
            status: int = options.run(options)
            output.flush()
        except (SwarmError, OSError) as error:
            print(f"swarm-audit: could not check: {_one_line(error)}", file=sys.stderr)  # noqa: T201
            return EXIT_CANNOT_CHECK
    return status


class _UntilClosed(io.TextIOBase):
    """A stream whose reader may have seen enough (`| head`): the verdict is the same without him."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _one_line(error: SwarmError | OSError) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}; name another file or folder"
    return " ".join(text.split())


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command line; its commands' parsers are of this kind."""

    def error(self, message: str) -> NoReturn:
        text = " ".join(message.split())
        self.exit(EXIT_CANNOT_CHECK, f"swarm-audit: {text}: see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="swarm-audit",
        description="Check the ledgers of a swarm, alone and offline.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print it and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    verify = commands.add_parser(
        "verify",
        help="check bundles against the numbered list of docs/ledger.md",
        description="Check bundles together, against the numbered list of docs/ledger.md.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("bundles", metavar="BUNDLE", nargs="+", type=Path, help="a directory")
    verify.add_argument("--charter", metavar="FILE", type=Path, help="your copy of charter.toml")
    verify.add_argument(
        "--charter-digest", metavar="HEX", type=_digest, help="its digest, from a trusted channel"
    )
    verify.add_argument(
        "--jobs", metavar="N", type=_jobs, default=1, help="processes to check signatures with"
    )
    verify.add_argument(
        "--quick", action="store_true", help="of the signatures only the newest of each log"
    )
    cli_read.add_brought(verify)
    verify.add_argument("--json", action="store_true", help="print the report as JSON")
    verify.set_defaults(run=_verify)
    cli_read.add_commands(commands, _digest, _jobs)
    cli_reputation.add_command(commands, _digest, _jobs)
    cli_shapley.add_command(commands, _digest, _jobs)
    cli_prove.add_commands(commands, _digest)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that costs more than starting."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"swarm-audit {version('swarm-node')}")  # noqa: T201
        parser.exit()


def _digest(text: str) -> str:
    text = "".join(text.split()).lower()
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("a digest has 64 hex digits; quotes around its groups")
    return text


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError("jobs are 1 to 256")
    return int(text)


def _verify(options: argparse.Namespace) -> int:
    from .verify import verify_bundles

    report = verify_bundles(
        options.bundles, *cli_read.trusted(options),
        jobs=options.jobs, quick=options.quick, brought=cli_read.brought(options),
    )  # fmt: skip
    if options.json:
        print(json.dumps(report.to_json(), indent=2))  # noqa: T201
    else:
        print(report.to_text())  # noqa: T201
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
