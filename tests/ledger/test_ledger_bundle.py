"""A bundle is files and nothing else; several bundles prove more than one."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_cases import close, small
from ledger_factory import Federation, frames, sign_bytes, write_bundle
from reputation_records import opened

from ledger.bundle import closed_counts, export_bundle, log_name, read_bundle
from ledger.errors import ConfigError, VerificationError
from ledger.fork import fork_proof
from ledger.frames import CHUNK_BYTES, read_frames
from ledger.record import Kind, SignedRecord, open_record, parse_envelope, sign_record
from ledger.store import Store
from ledger.verify import verify_bundles


def test_links_pipes_and_directories_in_place_of_files_are_refused(tmp_path: Path) -> None:
    federation = small()
    for number, make in enumerate(
        (
            lambda path: path.symlink_to(tmp_path / "elsewhere"),
            os.mkfifo,
            lambda path: path.mkdir(),
        )
    ):
        for name in ("logs/0001-0000.log", "charter.toml", "logs"):
            bundle = federation.bundle(tmp_path / f"bundle{number}")
            path = bundle / name
            if name == "logs":
                path.rename(tmp_path / f"moved{number}")
                if number == 2:
                    path.touch()
                else:
                    make(path)
            else:
                path.rename(tmp_path / "elsewhere")
                make(path)
            report = verify_bundles([bundle], federation.charter_bytes)
            assert [finding.error.code for finding in report.findings] == ["E_BUNDLE"], name
            assert report.findings[0].error.file == str(path)


@pytest.mark.parametrize("missing", ["charter.toml", "logs"])
def test_what_is_no_bundle_is_no_verdict(tmp_path: Path, missing: str) -> None:
    bundle = small().bundle(tmp_path / "bundle")
    (bundle / missing).rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match="not a bundle"):
        read_bundle(bundle)
    with pytest.raises(ConfigError, match="No such file"):
        verify_bundles([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="Not a directory"):
        verify_bundles(
            [tmp_path / "gone" / "0000-0000.log"] if missing == "logs" else [tmp_path / "gone"]
        )
    with pytest.raises(ConfigError, match="no bundle"):
        verify_bundles([])


def test_a_file_that_disappears_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        next(read_frames(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("log", "name"), [((0, 0), "0000-0000.log"), ((65535, 70000), "65535-70000.log")]
)
def test_names_of_logs(log: tuple[int, int], name: str) -> None:
    assert log_name(log) == name


@pytest.mark.parametrize(
    "name", ["0-0.log", "00001-0000.log", "0001-0000.LOG", "0001-0000.log~", "x"]
)
def test_other_names_of_logs_are_refused(tmp_path: Path, name: str) -> None:
    bundle = small().bundle(tmp_path / "bundle")
    (bundle / "logs" / name).touch()
    with pytest.raises(VerificationError, match="E_BUNDLE"):
        read_bundle(bundle)


def test_frames_across_chunks_come_back(tmp_path: Path) -> None:
    envelopes = [bytes([size % 251]) * size for size in (1, 70, 65_536, 300, 65_536, 9_999) * 4]
    path = tmp_path / "log"
    path.write_bytes(frames(envelopes))
    assert path.stat().st_size > 4 * CHUNK_BYTES
    assert list(read_frames(path)) == envelopes


def test_a_bundle_that_left_records_out_is_shown_up_by_another(tmp_path: Path) -> None:
    federation = Federation(4)
    federation.play(2)
    whole = federation.bundle(tmp_path / "whole")
    counts = [len(log) for log in federation.logs]
    # The last record of a log has been acked by nobody: alone, its loss cannot be seen.
    short = federation.bundle(tmp_path / "short", [counts[0], counts[1], counts[2], counts[3] - 1])
    alone = verify_bundles([short], federation.charter_bytes, federation.charter.digest_hex)
    assert alone.exit_status == 0
    both = verify_bundles([short, whole], federation.charter_bytes, federation.charter.digest_hex)
    assert both.exit_status == 0
    assert both.records == sum(counts)
    assert any("0003-0000.log has 6 of 7 records" in note for note in both.notes)


def test_a_fork_across_bundles_is_shown_with_both_records(tmp_path: Path) -> None:
    federation = small()
    close(federation)
    one = federation.bundle(tmp_path / "one")
    federation.logs[0].pop()
    federation.heads[0] = None
    close(federation, seq=2, prev=federation.logs[0][-1].id, lamport=9)
    two = federation.bundle(tmp_path / "two")
    report = verify_bundles([one, two], federation.charter_bytes, federation.charter.digest_hex)
    assert [finding.error.code for finding in report.findings] == ["E_FORK", "E_FORK"]
    for finding in report.findings:
        a, b = (open_record(parse_envelope(e), roster=federation.roster) for e in finding.proof)
        assert (a.value.author, a.value.seq) == (b.value.author, b.value.seq) == (0, 2)
        assert a.id != b.id
        assert all(envelope.hex() in report.to_text() for envelope in finding.proof)


def test_a_fork_in_one_file_is_shown_with_both_records(tmp_path: Path) -> None:
    federation = small()
    for _ in range(3):
        close(federation)
    close(federation, seq=2)
    bundle = federation.bundle(tmp_path / "bundle")
    (finding,) = verify_bundles([bundle], federation.charter_bytes).findings
    assert finding.error.seq == 2
    assert finding.proof[0] == federation.logs[0][2].signed.envelope()
    assert finding.proof[1] == federation.logs[0][5].signed.envelope()


def test_a_damaged_copy_does_not_hide_the_good_one(tmp_path: Path) -> None:
    federation = Federation(3)
    federation.play(1)
    good = federation.bundle(tmp_path / "good")
    damaged = federation.bundle(tmp_path / "damaged")
    path = damaged / "logs" / "0001-0000.log"
    data = path.read_bytes()
    path.write_bytes(data[:900] + bytes([data[900] ^ 4]) + data[901:])
    for bundles in ([good, damaged], [damaged, good]):
        report = verify_bundles(bundles, federation.charter_bytes)
        assert [finding.error.file for finding in report.findings] == [str(path)]
        assert report.records == len(federation.records())


def test_one_record_with_two_good_signatures_is_one_record(tmp_path: Path) -> None:
    federation = small()
    one = federation.bundle(tmp_path / "one")
    logs = {a: [r.signed.envelope() for r in log] for a, log in enumerate(federation.logs)}
    last = federation.logs[0][-1].signed
    logs[0][-1] = SignedRecord(last.record_bytes, last.signature[:-1] + b"\x00").envelope()
    two = write_bundle(tmp_path / "two", federation.charter_bytes, logs)
    report = verify_bundles([one, two], federation.charter_bytes)
    assert [finding.error.code for finding in report.findings] == ["E_SIGNATURE"]
    assert report.records == len(federation.records())
    assert sign_bytes(last.record_bytes, federation.signers[0]) == last


def test_without_a_charter_the_one_with_the_digest_is_used(tmp_path: Path) -> None:
    federation = small()
    one, two = federation.bundle(tmp_path / "one"), federation.bundle(tmp_path / "two")
    path = one / "charter.toml"
    path.write_bytes(path.read_bytes() + b" ")
    report = verify_bundles([one, two], None, federation.charter.digest_hex)
    assert [finding.error.file for finding in report.findings] == [str(path)]
    assert report.records == len(federation.records())


def test_a_damaged_log_is_the_only_one_refused(tmp_path: Path) -> None:
    federation = Federation(4)
    federation.play(3)
    bundle = federation.bundle(tmp_path / "bundle")
    path = bundle / "logs" / "0002-0000.log"
    path.write_bytes(path.read_bytes()[:1_500])
    report = verify_bundles([bundle], federation.charter_bytes)
    assert [finding.error.file for finding in report.findings] == [str(path)]
    assert report.findings[0].error.code == "E_TRUNCATED"
    assert {log.author: log.records for log in report.logs if log.author != 2} == {
        0: 10, 1: 10, 3: 10
    }  # fmt: skip


def test_many_aggregations_wait_for_their_inputs_without_being_looked_at_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.audit_refs._SWEEP_MIN", 8)
    federation = Federation(5)
    federation.play(8)
    bundle = federation.bundle(tmp_path / "bundle")
    report = verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)
    assert report.exit_status == 0


def test_a_reveal_waits_for_an_export_that_has_what_it_scores(tmp_path: Path) -> None:
    federation = opened(3)
    offered = {i: federation.contribute(i, 1) for i in (1, 2)}
    rows = federation.scores(offered, {1: 5, 2: 6})
    federation.reveal(0, 1, rows, federation.commit(0, 1, rows).value.seq)
    with Store.open(tmp_path / "ledger.db") as store:
        store.append([*federation.logs[0], *federation.logs[1][:1], federation.logs[2][0]])
        assert closed_counts(store) == {(0, 0): 2, (1, 0): 1, (2, 0): 1}
        store.append(federation.logs[1][1:])
        assert closed_counts(store)[0, 0] == 2
        store.append(federation.logs[2][1:])
        assert closed_counts(store)[0, 0] == 3


def test_what_a_reveal_scores_on_the_void_branch_of_a_proven_fork_is_not_waited_for(
    tmp_path: Path,
) -> None:
    federation = opened(4)
    held = federation.contribute(1, 1, samples=7)
    other = replace(held.value, body=federation.contribution_body(1, 1, samples=8))
    twin = sign_record(other, federation.signers[1])
    rows = federation.scores({1: twin}, {1: 5})
    federation.reveal(0, 1, rows, federation.commit(0, 1, rows).value.seq)
    proof = federation.write(2, Kind.FORK_PROOF, 1, fork_proof(held.signed, twin.signed))
    close(federation)
    with Store.open(tmp_path / "ledger.db") as store:
        store.append([record for log in federation.logs for record in log if record.id != proof.id])
        assert closed_counts(store)[0, 0] == 2, "nothing says that there is another branch"
        store.append([proof])
        assert closed_counts(store) == {(0, 0): 4, (1, 0): 2, (2, 0): 2, (3, 0): 1}
        bundle = export_bundle(store, federation.charter_bytes, tmp_path / "bundle")
    report = verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)
    assert (report.findings, report.records) == ((), 8)
