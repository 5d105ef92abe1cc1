"""What an auditor sees of a roster that changed, and every way in which it may have been spoilt."""

from pathlib import Path

import pytest
import roster_cases  # noqa: F401 - registers its cases
from ledger_cases import CASES
from ledger_factory import digest_of
from roster_factory import Living, lived, newcomer, write_files

from ledger.bundle import export_bundle
from ledger.errors import VerificationError
from ledger.record import open_record
from ledger.report import Report
from ledger.roster_store import load_roster, store_update, stored_updates
from ledger.store import Store
from ledger.verify import verify_bundles


def audited(federation: Living, directory: Path) -> Report:
    bundle = write_files(directory, federation.files())
    return verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)


def test_a_federation_that_joined_rotated_and_removed_is_verified(tmp_path: Path) -> None:
    federation = lived()
    report = audited(federation, tmp_path / "b")
    assert report.verdict == "VERIFIED", report.to_text()
    assert report.exit_status == 0
    assert (report.members, report.tolerated, report.quorum) == (4, 1, 3)
    assert {(log.author, log.epoch) for log in report.logs} == {
        (0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0),
    }  # fmt: skip


def test_the_store_exports_what_the_auditor_reads_back(tmp_path: Path) -> None:
    federation = lived()
    with Store.open(tmp_path / "ledger.db") as store:
        roster = federation.rosters[0]
        for signed in federation.updates:
            roster = store_update(store, roster, signed)
        store.append(sorted(federation.records(), key=lambda r: r.value.lamport))
        assert roster == federation.roster == load_roster(store, federation.charter)
        assert stored_updates(store) == federation.updates
        bundle = export_bundle(store, federation.charter_bytes, tmp_path / "bundle")
    files = {str(p.relative_to(bundle)): p.read_bytes() for p in bundle.rglob("*.*")}
    assert files == federation.files()


def test_a_store_drops_what_an_update_cuts_off_and_survives_its_restart(tmp_path: Path) -> None:
    federation = Living(4)
    federation.open_all()
    federation.close_all(1)
    update = federation.signed(federation.propose(federation.rotation(2)))
    federation.close_all(1)  # records that the cut does not know
    path = tmp_path / "ledger.db"
    with Store.open(path) as store:
        store.append(sorted(federation.records(), key=lambda r: r.value.lamport))
        roster = store_update(store, federation.roster, update)
        assert store.heads()[2, 0].next_seq == 2
        assert store.heads()[1, 0].next_seq == 3
    with Store.open(path) as store:
        assert load_roster(store, federation.charter) == roster
        assert store.heads()[2, 0].next_seq == 2
        bundle = export_bundle(store, federation.charter_bytes, tmp_path / "bundle")
    report = verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)
    assert report.verdict == "VERIFIED", report.to_text()
    assert any("later cut" in note for note in report.notes), report.to_text()


def test_a_store_that_held_the_other_branch_lets_go_of_it(tmp_path: Path) -> None:
    federation = Living(4)
    federation.open_all()
    cut = federation.cut(2)
    other = federation.propose(
        federation.rotation(2), cuts=(type(cut)(author=2, epoch=0, kept=1, head_id=digest_of("x")),)
    )
    with Store.open(tmp_path / "ledger.db") as store:
        store.append(federation.records())
        store_update(store, federation.roster, federation.signed(other))
        assert (2, 0) not in store.heads()


def test_bundles_may_know_more_or_fewer_updates(tmp_path: Path) -> None:
    federation = Living(4)
    federation.open_all()
    federation.close_all(1)
    early = write_files(tmp_path / "early", federation.files())
    federation.change(newcomer(4))
    federation.open_current()
    federation.close_all(2)
    late = write_files(tmp_path / "late", federation.files())
    for bundles in ([early, late], [late, early]):
        report = verify_bundles(bundles, federation.charter_bytes, federation.charter.digest_hex)
        assert report.verdict == "VERIFIED", report.to_text()
        assert report.members == 5


def test_a_record_is_final_only_under_one_roster(tmp_path: Path) -> None:
    """Two acks under one roster and one under the next are not three."""
    federation = Living(4)
    federation.open_all()
    for author in (1, 2):
        federation.write(author, 6, 1, federation.metrics_body(1), with_acks=True)
    report = audited(federation, tmp_path / "three")
    assert report.logs[0].final_seq == 0
    federation = Living(4)
    federation.open_all()
    federation.write(1, 6, 1, federation.metrics_body(1), with_acks=True)
    federation.change(newcomer(4))
    for author in (2, 3):
        federation.write(author, 6, 1, federation.metrics_body(1), with_acks=True)
    assert audited(federation, tmp_path / "split").logs[0].final_seq == -1
    federation.write(1, 6, 1, federation.metrics_body(1), acks=())
    federation.write(0, 6, 1, federation.metrics_body(1), acks=())
    for author in (1, 2, 3):
        federation.write(author, 6, 1, federation.metrics_body(1), with_acks=True)
    assert audited(federation, tmp_path / "again").logs[0].final_seq == 1


def test_a_retired_epoch_is_refused_with_its_code() -> None:
    federation = Living(4)
    federation.open_all()
    old = federation.draft(1, 6, 1, federation.metrics_body(1))
    signer = federation.signers[1]
    federation.rotate(1)
    from dataclasses import replace

    from ledger.record import sign_record

    late = sign_record(replace(old, roster=1), signer)
    with pytest.raises(VerificationError) as refused:
        open_record(late.signed, roster=federation.roster)
    assert refused.value.code == "E_EPOCH"
    # Under the roster that it knew it was right when it was written: the cut decides.
    early = sign_record(old, signer)
    assert open_record(early.signed, roster=federation.roster).id == early.id


def test_the_cases_of_the_roster_are_registered() -> None:
    assert "an_update_without_a_quorum" in CASES
