"""Whoever reads a bundle uses the roster in force: proofs, their check, policies, pins."""

import json
from pathlib import Path

import pytest
from checkpoint_factory import cosigned
from ledger_factory import Federation
from roster_factory import Living, newcomer, write_files

from ledger import cli
from ledger.bundle import export_bundle, read_bundle
from ledger.checkpoint import log_vkey, policy, witness_vkey
from ledger.errors import VerificationError
from ledger.prove import check_proof, prove_consistency, prove_inclusion, rosters_of
from ledger.roster_store import lacking, store_update
from ledger.store import Store
from ledger.verify import Brought, verify_bundles


class Changed:
    """Four members; 4 joined, 1 rotated, 0 left. ``old``: log 2 cosigned before any of it."""

    def __init__(self, directory: Path) -> None:
        federation = self.federation = Living(4)
        federation.open_all()
        federation.close_all(1)
        self.old = cosigned(federation, 2, [0, 1, 2])
        federation.change(newcomer(4))
        federation.open_current()
        federation.close_all(2)
        federation.rotate(1)
        federation.open_current()
        federation.close_all(3)
        federation.remove(0)
        federation.close_all(4)
        federation.close_all(4)
        self.bundle = write_files(directory / "bundle", federation.files())
        self.charter = directory / "charter.toml"
        self.charter.write_bytes(federation.charter_bytes)
        self.rosters = tuple(reversed(federation.rosters))


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Changed:
    return Changed(tmp_path_factory.mktemp("changed"))


@pytest.mark.parametrize("place", ["1/1/1", "4/0/1", "0/0/1", "1/0/1", "3/0/4"])
def test_a_record_under_any_roster_is_proved_and_checked(changed: Changed, place: str) -> None:
    """Newcomers, rotated and removed members: 1/1 and 4/0 were no log of the charter's."""
    made = prove_inclusion(changed.bundle, place)
    assert made.missing == ("nobody signed the checkpoint",)
    assert f"/log/{'/'.join(place.split('/')[:2])}\n".encode() in made.data


def test_a_newcomers_record_is_proved_under_a_checkpoint_of_todays_quorum(changed: Changed) -> None:
    checkpoint = cosigned(changed.federation, 4, [2, 3, 4])
    made = prove_inclusion(changed.bundle, "4/0/1", checkpoint=checkpoint)
    assert made.missing == ()
    record, opened, missing = check_proof(made.data, rosters=changed.rosters)
    assert (record.value.author, opened.is_anchored, missing) == (4, True, ())
    with pytest.raises(VerificationError) as refusal:
        check_proof(made.data, rosters=changed.rosters[-1:])  # who knows the charter alone
    assert refusal.value.code == "E_ROSTER_UNKNOWN"


def test_a_checkpoint_that_an_older_quorum_finished_is_finished(changed: Changed) -> None:
    """Member 0 has left since; its cosignature counted when it was given."""
    made = prove_inclusion(changed.bundle, "2/0/0", checkpoint=changed.old)
    assert made.missing == ()
    made = prove_consistency(changed.bundle, changed.old)
    assert made.missing == ("nobody signed the checkpoint",)


def test_a_pin_that_an_older_quorum_finished_anchors(changed: Changed, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(changed.old)
    digest = changed.federation.charter.digest_hex
    report = verify_bundles([changed.bundle], None, digest, brought=Brought(pins=[pin]))
    assert (report.verdict, report.anchored) == ("VERIFIED", 2), report.to_text()


def test_a_record_behind_a_cut_is_not_proved(changed: Changed, tmp_path: Path) -> None:
    federation = Living(4)
    federation.open_all()
    federation.close_all(1)
    whole = list(federation.logs[1])
    federation.rotate(1, cuts=(federation.cut(1, kept=1),))
    federation.open_current()
    federation.ended[1, 0] = whole
    bundle = write_files(tmp_path / "bundle", federation.files())
    with pytest.raises(VerificationError) as refusal:
        prove_inclusion(bundle, "1/0/0")
    assert refusal.value.code == "E_AFTER_CUT"


def test_the_policy_names_todays_members_and_every_log(changed: Changed) -> None:
    roster = changed.rosters[0]
    text = policy(roster)
    lines = text.splitlines()
    logs = [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0)]
    assert [one for one in lines if one.startswith("log ")] == [
        f"log {log_vkey(roster, *log)}" for log in logs
    ]
    assert [one for one in lines if one.startswith("witness ")] == [
        f"witness member-{one} {witness_vkey(roster, one)}" for one in (1, 2, 3, 4)
    ]
    assert "group quorum-of-members 3 member-1 member-2 member-3 member-4" in lines


def test_the_command_line_takes_updates_from_a_bundle(
    changed: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof, head = tmp_path / "p", tmp_path / "c"
    head.write_bytes(cosigned(changed.federation, 4, [2, 3, 4]))
    made = ["prove", str(changed.bundle), "--record", "4/0/1", "--checkpoint", str(head)]
    assert cli.main([*made, "-o", str(proof), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == []
    check = ["check", str(proof), "--charter", str(changed.charter)]
    digest = ["--charter-digest", changed.federation.charter.digest_hex]
    assert cli.main([*check, *digest]) == 2
    assert "give a bundle that has the later updates (--updates BUNDLE)" in capsys.readouterr().err
    assert cli.main([*check, *digest, "--updates", str(changed.bundle), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], sorted(said["cosigned"])) == ("VERIFIED", ["2", "3", "4"])
    assert cli.main(["policy", str(changed.charter), "--updates", str(changed.bundle)]) == 0
    assert capsys.readouterr().out == policy(changed.rosters[0])


def test_updates_of_another_federation_are_refused(changed: Changed, tmp_path: Path) -> None:
    other = Federation(3).bundle(tmp_path / "other")
    with pytest.raises(VerificationError) as refusal:
        rosters_of((other / "charter.toml").read_bytes(), bundle=read_bundle(changed.bundle))
    assert refusal.value.code == "E_NETWORK"


def test_a_bundle_with_a_bad_update_proves_nothing(changed: Changed, tmp_path: Path) -> None:
    files = changed.federation.files()
    update = bytearray(files["rosters/0002.update"])
    update[-1] ^= 1
    bundle = write_files(tmp_path / "bundle", files | {"rosters/0002.update": bytes(update)})
    with pytest.raises(VerificationError) as refusal:
        prove_inclusion(bundle, "2/0/0")
    assert refusal.value.code == "E_SIGNATURE"


def test_a_site_that_lacks_what_a_cut_keeps_is_refuted_alone_and_not_beside_another(
    tmp_path: Path,
) -> None:
    """It knows the update and has not heard all of the log; its exporter can say so."""
    federation = Living(4)
    federation.open_all()
    federation.close_all(1)
    before = federation.roster
    signed = federation.remove(0)
    digest = federation.charter.digest_hex
    bundles = []
    for name, heard in (("behind", 1), ("whole", 2)):
        with Store.open(tmp_path / f"{name}.db") as store:
            opens = [federation.logs[one][0] for one in (1, 2, 3)]
            store.append([*opens, *federation.ended[0, 0][:heard]])
            roster = store_update(store, before, signed)
            held = {cut.author: count for cut, count in lacking(store, roster).items()}
            assert held == ({0: 1} if heard == 1 else {})
            bundles.append(export_bundle(store, federation.charter_bytes, tmp_path / name))
    alone = verify_bundles(bundles[:1], federation.charter_bytes, digest)
    assert [one.error.code for one in alone.findings] == ["E_OMISSION"]
    both = verify_bundles(bundles, federation.charter_bytes, digest)
    assert both.verdict == "VERIFIED", both.to_text()
