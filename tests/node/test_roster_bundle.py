"""A site without a ledger proposes its own rotation from what another hospital exported."""

import json
import sys
from pathlib import Path

import pytest
from site_factory import make_federation

from ledger.bundle import export_bundle
from ledger.chain import compose
from ledger.charter import load_charter
from ledger.record import NO_ID, Kind, Open, sign_record
from ledger.roster import Roster
from ledger.roster_update import Rotate
from ledger.store import Store
from node.cli import call
from node.config import SitePaths
from node.identity import load_identity
from node.roster_files import read_update

sys.path.insert(0, str(Path(__file__).parent.parent / "ledger"))

from ledger_factory import Federation


def test_the_cut_and_the_next_key_come_from_bundle_and_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, *_ = make_federation(tmp_path, ("Anna", "Berta", "Carla", "Dora"))
    charter = load_charter(anna.charter.read_bytes())
    roster, identity = Roster.from_charter(charter), load_identity(SitePaths(anna.directory))
    record = compose(
        None, roster=roster, author=0, epoch=0, kind=Kind.OPEN, round=0, time_ms=1, acks=[],
        body=Open(
            public_key=identity.ledger().public_key, previous_head=NO_ID,
            software_digest=NO_ID, charter_digest=charter.net,
        ),
    )  # fmt: skip
    opened = sign_record(record, identity.ledger())
    with Store.open(tmp_path / "berta.db") as store:
        store.append([opened])
        bundle = export_bundle(store, charter.source_bytes, tmp_path / "bundle")
    update = tmp_path / "r.update"
    rotate = ["roster", "propose", "rotate", "Anna", "--config", str(anna.config)]
    assert call([*rotate, "--out", str(update)]) == 2, "it has nothing to cut at"
    capsys.readouterr()
    assert call([*rotate, "--out", str(update), "--bundle", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["needed"] == 3
    _, proposed = read_update(update)
    assert isinstance(proposed.operation, Rotate)
    assert proposed.operation.ledger_key == identity.ledger(1).public_key
    assert [(one.kept, one.head_id) for one in proposed.cuts] == [(1, opened.id)]


def test_a_bundle_of_another_federation_or_a_damaged_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (anna,) = make_federation(tmp_path)
    rotate = ["roster", "propose", "rotate", "Anna", "--config", str(anna.config)]
    federation = Federation(3)
    federation.open_all()
    bundle = federation.bundle(tmp_path / "other")
    assert call([*rotate, "--bundle", str(bundle)]) == 2
    assert "is of another charter" in capsys.readouterr().err
    log = bundle / "logs" / "0001-0000.log"
    log.write_bytes(log.read_bytes()[:-9])
    assert call([*rotate, "--bundle", str(bundle)]) == 2
    assert "E_TRUNCATED" in capsys.readouterr().err
