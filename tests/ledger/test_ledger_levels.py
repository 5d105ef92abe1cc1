"""Whatever is done to a bundle, every way to audit it agrees: one process, several, step by step.

Mutations are drawn from a seed: bytes as an outsider could change them, whole frames, and values
that a liar signs with a member's own key, so that every step is reached.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from ledger_factory import Federation, frames, sign_bytes, write_bundle
from test_ledger_jobs import Counter

from ledger import audit
from ledger.audit_jobs import Block, LogFiles, check_blocks
from ledger.audit_log import LogAudit
from ledger.bundle import log_name
from ledger.canonical import ENVELOPE_BYTES_MAX, decode, pack
from ledger.report import Report
from ledger.verify import verify_bundles

MUTATIONS: Final = 200
Envelopes = list[list[bytes]]  # of each author's log


@contextmanager
def here(logs: Sequence[LogFiles], _: int) -> Iterator[Callable[[], dict[Block, bytes]]]:
    """What the other processes do, done in this one."""
    yield lambda: check_blocks(logs, Counter())


def lie(value: Any, draw: random.Random) -> Any:
    """Return the value with one thing in it changed."""
    if isinstance(value, list):
        if not value or draw.random() < 0.1:
            return draw.choice([[*value, 0], value[:-1], value[::-1]])
        at = draw.randrange(len(value))
        return [*value[:at], lie(value[at], draw), *value[at + 1 :]]
    if isinstance(value, bytes):
        return draw.choice([value[:-1], draw.randbytes(len(value)), value + b"\0"])
    return draw.choice([value + 1, max(value - 1, 0), 0, True, 1 << 53, -1, b"", []])


def mutate_frames(logs: Envelopes, federation: Federation, draw: random.Random) -> str:
    """Change one record of one log; return how."""
    author = draw.randrange(len(logs))
    log = logs[author]
    seq = draw.choice([draw.randrange(len(log)), len(log) - 1])
    how = draw.choice(["lie", "lie", "lie", "spell", "drop", "double", "swap", "foreign"])
    if how in {"lie", "spell"}:
        record_bytes = federation.logs[author][seq].signed.record_bytes
        if how == "lie":
            changed: bytes = pack(lie(decode(record_bytes), draw))
        else:  # the number before the end, or what looks like it, in another spelling
            at = draw.randrange(len(record_bytes))
            changed = record_bytes[:at] + b"\xcc" + record_bytes[at:]
        log[seq] = sign_bytes(changed, federation.signers[author]).envelope()
    elif how == "drop":
        del log[seq]
    elif how == "double":
        log.insert(seq, log[seq])
    elif how == "swap":
        log[seq - 1], log[seq] = log[seq], log[seq - 1]
    else:
        log[seq] = draw.choice(logs[author - 1])
    return f"{how} {author}/{seq}"


def mutate_bytes(path: Path, draw: random.Random) -> str:
    """Change bytes of one file; return how."""
    data = path.read_bytes()
    at, count = draw.randrange(len(data)), draw.randrange(1, 40)
    how = draw.choice(["flip", "flip", "flip", "cut", "remove", "insert"])
    changed = {
        "flip": data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :],
        "cut": data[:at],
        "remove": data[:at] + data[at + count :],
        "insert": data[:at] + draw.randbytes(count) + data[at:],
    }[how]
    path.write_bytes(changed)
    return f"{how} {path.name} at {at}"


def codes(report: Report) -> list[tuple[int, str]]:
    return [(finding.step, finding.error.code) for finding in report.findings]


def test_every_way_to_audit_a_mutated_bundle_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(2)
    federation.play(2)
    right = federation.bundle(tmp_path / "right")
    trusted = federation.charter_bytes, federation.charter.digest_hex
    refuted = set()
    for seed in range(MUTATIONS):
        draw = random.Random(seed)
        logs = [[one.signed.envelope() for one in log] for log in federation.logs]
        wrong = write_bundle(
            tmp_path / "wrong", federation.charter_bytes, dict(enumerate(logs))
        )  # fmt: skip
        if draw.random() < 0.5:
            how = mutate_bytes(draw.choice(sorted((wrong / "logs").iterdir())), draw)
        else:
            how = mutate_frames(logs, federation, draw)
            assert all(len(envelope) <= ENVELOPE_BYTES_MAX for log in logs for envelope in log)
            for author, log in enumerate(logs):
                (wrong / "logs" / log_name((author, 0))).write_bytes(frames(log))
        bundles = draw.choice([[wrong], [wrong], [wrong, right], [right, wrong]])
        where = f"seed {seed}: {how}, {[bundle.name for bundle in bundles]}"
        full = verify_bundles(bundles, *trusted)
        with monkeypatch.context() as patched:
            patched.setattr(audit, "signature_jobs", here)
            together = verify_bundles(bundles, *trusted, jobs=2)
            patched.setattr(LogAudit, "_accepts", lambda *_: False)
            slow = verify_bundles(bundles, *trusted)
        quick = verify_bundles(bundles, *trusted, quick=True)
        assert together.to_json() == full.to_json(), where
        assert slow.to_json() == full.to_json(), where
        if "E_SIGNATURE" not in {code for _, code in codes(full)}:
            assert codes(quick) == codes(full), where
        # Else the next record's prev shows it, unless only bytes of a signature have changed.
        assert quick.exit_status == (1 if quick.findings else 3), where
        assert full.findings or not quick.findings, where
        if seed % 25 == 0:
            assert verify_bundles(bundles, *trusted, jobs=2).to_json() == full.to_json(), where
        refuted |= set(codes(full))
    assert len(refuted) > 12, refuted  # the mutations reach most steps
