"""kill -9 at any instant: what append returned is there, whole, and the chain verifies."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger_factory import Federation

from ledger.bundle import export_bundle
from ledger.chain import LogHead, check_next
from ledger.record import open_record
from ledger.store import Store
from ledger.verify import verify_bundles

HERE = Path(__file__).parent
SEED = 20_240_607
KILLS = 220
KILLS_OF_NEW_FILES = 40
WAIT_S_MAX = 0.04


class Writers:
    """Starts writers one after the other, quickly, and kills each."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def kill_one(self, path: Path, *, pages: int, seed: int, after_s: float) -> int:
        """Return how many records it had said were committed."""
        self._stdin.write(f"{path} {pages} {seed}\n")
        self._stdin.flush()
        promised = 0
        for line in iter(self._stdout.readline, "dead\n"):
            if line.startswith("pid "):
                time.sleep(after_s)
                os.kill(int(line[4:]), signal.SIGKILL)
            else:
                promised = int(line)
        return promised


@contextmanager
def writers() -> Iterator[Writers]:
    root = HERE.parent.parent
    with subprocess.Popen(
        [sys.executable, HERE / "store_killed.py"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:  # fmt: skip
        yield Writers(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def verified_head(store: Store, federation: Federation, head: LogHead | None) -> LogHead | None:
    """Verify what has come since ``head``, signatures and chain."""
    from_seq = head.next_seq if head else 0
    for signed in store.records(author=0, from_seq=from_seq):
        head = check_next(head, open_record(signed, roster=federation.roster))
    return head


def test_what_was_acknowledged_survives_220_kills_at_random_instants(tmp_path: Path) -> None:
    print(f"seed {SEED}")  # noqa: T201
    draw = random.Random(SEED)
    federation = Federation(1)
    grown = tmp_path / "grown.db"
    head: LogHead | None = None
    in_mid_group = created = 0
    with writers() as killer:
        for kill in range(KILLS):
            is_new = kill < KILLS_OF_NEW_FILES
            path = tmp_path / f"new-{kill}.db" if is_new else grown
            before = None if is_new else head
            # A writer that is killed while it opens has promised nothing; the file may not exist.
            promised = killer.kill_one(
                path, pages=draw.choice([8, 1_000]), seed=draw.randrange(1 << 32),
                after_s=draw.uniform(0, WAIT_S_MAX),
            )  # fmt: skip
            floor = max(promised, before.next_seq if before else 0)
            with Store.open(path) as store:
                stored = store.heads().get((0, 0))
                count = stored.next_seq if stored else 0
                assert count >= floor, f"kill {kill}: {floor - count} acknowledged records are lost"
                assert verified_head(store, federation, before) == stored, f"kill {kill}"
                phase = store.state_get("phase")
                assert phase == (str(count).encode() if count else None), "whole groups only"
            in_mid_group += count > floor
            created += count > 0
            if not is_new:
                head = stored
    assert head is not None
    assert created > KILLS // 2, "most writers have lived long enough to commit"
    with Store.open(grown) as store:
        bundle = export_bundle(store, federation.charter_bytes, tmp_path / "bundle")
    report = verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)
    assert (report.exit_status, report.records) == (0, head.next_seq)
    said = f"{KILLS} kills, {head.next_seq} records, {in_mid_group} between commit and answer"
    print(said)  # noqa: T201
