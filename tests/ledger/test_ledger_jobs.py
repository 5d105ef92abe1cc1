"""Several processes, or fewer signatures: the same verdict and codes, or a label that says why not."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ledger_cases import CASES, close, small
from ledger_factory import Federation
from test_ledger_tamper import write

from ledger import audit, audit_evaluations, audit_jobs
from ledger.audit_jobs import BLOCK_RECORDS, LogFiles, check_blocks, confirms, signature_jobs
from ledger.report import QUICK
from ledger.verify import verify_bundles


class Counter:
    """The shared counter of one process."""

    def __init__(self) -> None:
        self.value = 0

    def get_lock(self) -> "Counter":
        return self

    def acquire(self, **_: float) -> bool:
        return True

    def release(self) -> None:
        pass


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, Path]:
    """Logs of more than one block."""
    federation = Federation(4)
    federation.play(100)
    assert len(federation.logs[0]) > BLOCK_RECORDS
    return federation, federation.bundle(tmp_path_factory.mktemp("played") / "bundle")


def files_of(federation: Federation, bundle: Path) -> list[LogFiles]:
    return [
        LogFiles(key=signer.public_key, paths=(bundle / "logs" / f"{index:04d}-0000.log",))
        for index, signer in enumerate(federation.signers)
    ]


@pytest.mark.parametrize("name", CASES)
def test_every_case_has_the_same_report_with_helpers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the helper's work done in this process: what it is asked and answers is the same."""
    case = CASES[name]()
    bundles = write(case, tmp_path)

    class Here:
        def __init__(self, logs: Sequence[LogFiles], _: int) -> None:
            self.logs = logs

        def __enter__(self) -> Callable[[], Any]:
            return lambda: check_blocks(self.logs, Counter())

        def __exit__(self, *_: object) -> None:
            pass

    alone = verify_bundles(bundles, case.charter, case.digest)
    monkeypatch.setattr(audit, "signature_jobs", Here)
    together = verify_bundles(bundles, case.charter, case.digest, jobs=2)
    assert together.to_json() == alone.to_json()


@pytest.mark.parametrize("jobs", [2, 3])
def test_processes_share_the_blocks_and_agree(
    jobs: int, played: tuple[Federation, Path], tmp_path: Path
) -> None:
    federation, bundle = played
    alone = verify_bundles([bundle], federation.charter_bytes)
    shorter = federation.bundle(tmp_path / "shorter", counts=[301, 200, 1, 256])
    assert verify_bundles([bundle], federation.charter_bytes, jobs=jobs) == alone
    both = verify_bundles([bundle, shorter], federation.charter_bytes, jobs=jobs)
    assert both.logs == alone.logs
    assert both.verdict == "VERIFIED"


def test_one_wrong_signature_among_many_is_found_by_processes(
    played: tuple[Federation, Path], tmp_path: Path
) -> None:
    federation, _ = played
    bundle = federation.bundle(tmp_path / "bundle")
    path = bundle / "logs" / "0002-0000.log"
    data = path.read_bytes()
    envelope = federation.logs[2][290].signed.envelope()
    path.write_bytes(data.replace(envelope, envelope[:-1] + bytes([envelope[-1] ^ 1])))
    report = verify_bundles([bundle], federation.charter_bytes, jobs=2)
    (finding,) = report.findings
    assert (finding.error.code, finding.error.author, finding.error.seq) == ("E_SIGNATURE", 2, 290)
    assert report.to_json() == verify_bundles([bundle], federation.charter_bytes).to_json()


def test_a_file_that_changes_between_two_readers_confirms_nothing(
    played: tuple[Federation, Path], tmp_path: Path
) -> None:
    federation, bundle = played
    files = files_of(federation, bundle)
    ids = [b"".join(one.id for one in log) for log in federation.logs]
    good = check_blocks(files, Counter())
    assert confirms(good, ids)
    swapped = ids[0][32:64] + ids[0][:32] + ids[0][64:]
    assert not confirms(good, [swapped, *ids[1:]])
    assert not confirms(good, [ids[0] + bytes(32), *ids[1:]])
    assert not confirms({}, ids)
    # The log of another member: rightly signed by nobody here.
    crossed = [LogFiles(key=files[1].key, paths=files[0].paths), *files[1:]]
    counter = Counter()
    assert check_blocks(crossed, counter) == {}
    assert counter.value > 1 << 60


def test_a_helper_that_dies_costs_time_and_nothing_else(
    played: tuple[Federation, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, bundle = played

    def dies(*_: object) -> None:
        os._exit(1)

    monkeypatch.setattr(audit_jobs, "_work", dies)
    with signature_jobs(files_of(federation, bundle), 2) as finish:
        assert finish() == check_blocks(files_of(federation, bundle), Counter())
    monkeypatch.setattr(audit_jobs, "_claim", lambda _: 1 << 62)
    report = verify_bundles([bundle], federation.charter_bytes, jobs=2)
    assert report == verify_bundles([bundle], federation.charter_bytes)


# --- quick ------------------------------------------------------------------------------------


def test_quick_says_so_first_and_in_json_and_is_never_status_0(
    played: tuple[Federation, Path],
) -> None:
    federation, bundle = played
    report = verify_bundles(
        [bundle], federation.charter_bytes, federation.charter.digest_hex, quick=True
    )
    assert report.to_text().startswith(
        "QUICK: only the newest signature of each log was checked. VERIFIED: 1204 records"
    )
    assert report.to_json()["level"] == QUICK
    assert report.exit_status == 3
    assert report.missing == ("1200 signatures were skipped (--quick)",)


@pytest.mark.parametrize("name", CASES)
def test_quick_refuses_what_full_refuses_where_the_newest_signature_shows_it(
    name: str, tmp_path: Path
) -> None:
    case = CASES[name]()
    bundles = write(case, tmp_path)
    full = verify_bundles(bundles, case.charter, case.digest)
    quick = verify_bundles(bundles, case.charter, case.digest, quick=True)
    assert quick.verdict == full.verdict
    if quick.findings:
        assert quick.exit_status == 1


def test_quick_skips_a_wrong_signature_below_the_head_and_not_the_heads(tmp_path: Path) -> None:
    for spoilt, verdict in ((1, "VERIFIED"), (2, "REFUTED")):
        federation = small()
        close(federation)
        bundle = federation.bundle(tmp_path / str(spoilt))
        path = bundle / "logs" / "0000-0000.log"
        envelope = federation.logs[0][spoilt].signed.envelope()
        path.write_bytes(
            path.read_bytes().replace(envelope, envelope[:-1] + bytes([envelope[-1] ^ 1]))
        )
        for bundles in ([bundle], [bundle, bundle]):
            report = verify_bundles(bundles, federation.charter_bytes, quick=True)
            assert report.verdict == verdict, report.to_text()
            assert verify_bundles(bundles, federation.charter_bytes).exit_status == 1


def test_quick_sees_every_changed_byte_that_is_not_in_a_signature(tmp_path: Path) -> None:
    federation = small()
    bundle = federation.bundle(tmp_path / "bundle")
    path = bundle / "logs" / "0000-0000.log"
    good = path.read_bytes()
    first = federation.logs[0][0].signed
    skipped = range(4 + len(first.envelope()) - 64, 4 + len(first.envelope()))
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        report = verify_bundles([bundle], federation.charter_bytes, quick=True)
        if position not in skipped:
            assert report.exit_status == 1, f"byte {position}"


def test_reveals_that_wait_are_looked_at_again_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_evaluations, "_SWEEP_MIN", 1)
    for name in (
        "good_evaluations", "good_reveal_before_its_targets_by_lamport",
        "score_of_what_nobody_contributed", "score_of_another_round",
    ):  # fmt: skip
        case = CASES[name]()
        report = verify_bundles(write(case, tmp_path / name), case.charter, case.digest)
        assert sorted((one.step, one.error.code) for one in report.findings) == case.expected
