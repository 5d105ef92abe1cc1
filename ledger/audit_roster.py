"""The roster under audit: steps 2, 3 and 14. Room: ledger. Spec: docs/ledger.md §10 and §12.

Step 3 walks the chain of updates of every bundle. A bundle may know fewer updates than another; two
different ones that continue the same roster are a fork of the roster, and nothing stands above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from .audit_log import LogAudit
from .bundle import Bundle
from .charter import Charter
from .errors import VerificationError
from .fork import Cut
from .report import Finding
from .roster import Roster
from .roster_update import SignedUpdate, advance, decode_update, parse_update

Log: TypeAlias = tuple[int, int]
_CODES_OF_STEP_2: Final = frozenset(
    {"E_SIZE", "E_ENCODING", "E_NONCANONICAL", "E_VERSION", "E_SCHEMA", "E_ORDER"}
)


@dataclass(frozen=True)
class _Child:
    """An accepted update, and where it was found first."""

    signed: SignedUpdate
    file: str


def step_2_3_updates(bundles: Sequence[Bundle], charter: Charter) -> tuple[Roster, list[Finding]]:
    """Return the newest roster that the bundles prove, and what was wrong with their updates.

    E_ROSTER_PREV, E_ROSTER_QUORUM, E_ROSTER_FORK, E_ROSTER_CUT and the codes of decoding and keys.
    """
    newest = first = Roster.from_charter(charter)
    findings: list[Finding] = []
    children: dict[bytes, _Child] = {}  # digest of a roster → the update that continues it
    for bundle in bundles:
        line = {first.digest: first}
        roster = first
        for number, (path, data) in sorted(bundle.rosters.items()):
            try:
                signed = parse_update(data)
                roster = _next(line, roster, signed, number)
                _check_one_child(children, signed, str(path))
            except VerificationError as error:
                step = 2 if error.code in _CODES_OF_STEP_2 else 3
                proof = _fork_proof(children, data) if error.code == "E_ROSTER_FORK" else ()
                findings.append(Finding(step, error.locate(file=str(path)), proof))
                break
            line[roster.digest] = roster
            newest = roster if len(roster.versions) > len(newest.versions) else newest
    return newest, findings


def rosters_in_force(bundles: Sequence[Bundle], charter: Charter) -> tuple[Roster, ...]:
    """Return every roster version that the bundles prove, the newest first.

    Raises VerificationError: the first refusal of an update.
    """
    _, findings = step_2_3_updates(bundles, charter)
    if findings:
        raise findings[0].error
    versions = [Roster.from_charter(charter)]
    longest = max(bundles, key=lambda one: len(one.rosters), default=None)
    for _, (_, data) in sorted(longest.rosters.items()) if longest is not None else ():
        versions.append(advance(versions[-1], parse_update(data)))
    return tuple(reversed(versions))


def _next(
    line: Mapping[bytes, Roster], roster: Roster, signed: SignedUpdate, number: int
) -> Roster:
    """Apply an update to the roster before; one that continues an older one makes a fork."""
    update = decode_update(signed.update_bytes)
    before = roster
    if update.previous != roster.digest and update.previous in line:
        before = line[update.previous]
    after = advance(before, signed)
    if update.version != number:
        raise VerificationError(
            "E_ROSTER_PREV", f"the file holds roster {update.version}", expected=f"roster {number}"
        )
    if before is not roster:
        raise VerificationError(
            "E_ROSTER_FORK",
            f"rosters {number} and {roster.version} both continue roster {before.version}",
        )
    return after


def _check_one_child(children: dict[bytes, _Child], signed: SignedUpdate, file: str) -> None:
    """A quorum that signs two updates of one roster holds more than f double signers."""
    update = decode_update(signed.update_bytes)
    known = children.setdefault(update.previous, _Child(signed, file))
    if known.signed.digest != signed.digest:
        twice = sorted(dict(known.signed.signatures).keys() & dict(signed.signatures).keys())
        raise VerificationError(
            "E_ROSTER_FORK",
            f"{known.file} continues the same roster otherwise; members "
            f"{', '.join(map(str, twice))} signed both",
        )


def _fork_proof(children: Mapping[bytes, _Child], data: bytes) -> tuple[bytes, ...]:
    known = children.get(decode_update(parse_update(data).update_bytes).previous)
    return (known.signed.envelope(), data) if known else (data,)


def check_cut_of(log: LogAudit, value: list[Any], id_: bytes) -> None:
    """Refuse a record behind its log's cut, or in the place of the cut's head. E_AFTER_CUT."""
    if log.cut is not None:
        check_cut(log.cut, value[4], id_)


def check_cut(cut: Cut, seq: int, id_: bytes) -> None:
    """Do the same for one record of the log that was cut. E_AFTER_CUT."""
    if seq >= cut.kept:
        raise VerificationError(
            "E_AFTER_CUT", "a record after the cut", expected=f"{cut.kept} records"
        )
    if seq == cut.kept - 1 and id_ != cut.head_id:
        raise VerificationError(
            "E_AFTER_CUT", "another record than the cut's head", expected=cut.head_id.hex()
        )


@final
class CutAudit:
    """Step 14: what a cut leaves is there, whole."""

    def __init__(self, logs: Mapping[Log, LogAudit], roster: Roster) -> None:
        self._logs = logs
        self._cuts = {(cut.author, cut.epoch): cut for cut in roster.cuts()}

    def settle(self) -> list[Finding]:
        """A quorum vouches for what a cut keeps, so it must be there. E_OMISSION, E_MISSING_AUTHOR.

        What a damaged file no longer shows is not missed a second time.
        """
        return [one for cut in self._cuts.values() if (one := self._missing(cut)) is not None]

    def _missing(self, cut: Cut) -> Finding | None:
        log = self._logs.get((cut.author, cut.epoch))
        name = f"{cut.kept} records of {cut.author}/{cut.epoch}"
        if cut.kept == 0 or (log is not None and (log.damaged or len(log) >= cut.kept)):
            return None
        if log is None:
            error = VerificationError(
                "E_MISSING_AUTHOR", f"the roster keeps {name}, and no bundle has that log"
            )
            return Finding(4, error.locate(author=cut.author, epoch=cut.epoch))
        error = VerificationError(
            "E_OMISSION",
            f"the roster keeps {name}, and the bundles have {len(log)}",
            file=log.sources[0].file,
            expected=f"a head {cut.head_id.hex()}",
        )
        return Finding(14, error.locate(author=cut.author, epoch=cut.epoch, seq=len(log)))
