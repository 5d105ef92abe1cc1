"""A cut chose between two branches: who was away and acked the other is let in. docs/ledger.md §7, §12.4."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "ledger"))

from roster_factory import Living

from ledger.record import Kind
from ledger.store import Store
from node.forks import Forks
from node.intake import Batch, Intake
from node.round_share import RoundShares

ALL = 4


def test_an_ack_of_the_branch_that_a_cut_left_out_is_stored(tmp_path: Path) -> None:
    """Nobody shows the other record of member 1 any more, so no proof of a fork can ever come."""
    federation = Living(ALL)
    federation.open_all()
    opened, head = list(federation.logs[1]), federation.heads[1]
    federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    unseen = federation.heads[1]
    assert unseen is not None
    late = federation.add(
        federation.draft(2, Kind.METRICS, 1, federation.metrics_body(1), [unseen])
    )
    federation.logs[1], federation.heads[1] = opened, head
    federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    federation.rotate(1)
    with Store.open(tmp_path / "ledger.db") as store:
        forks = Forks(store, federation.roster, (0, 0))
        shares = RoundShares(store, federation.roster, rounds=None)
        intake = Intake(store, federation.roster, (0, 0), forks, shares)
        own = federation.logs[0]
        store.append(own)
        others = [one for one in federation.records() if one.value.author]
        intake.take([one.signed.envelope() for one in others], store.heads())
        assert late.id in {one.id for one in store.records(author=2)}


def test_a_record_that_a_cut_has_just_removed_has_no_id(tmp_path: Path) -> None:
    """Heads are compared while a roster update is stored: what is told of the log is older than the disk."""
    federation = Living(ALL)
    federation.open_all()
    for _ in range(3):
        federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    with Store.open(tmp_path / "ledger.db") as store:
        store.append(federation.records())
        heads = store.heads()
        store.cut({(1, 0): 1})
        shares = RoundShares(store, federation.roster, rounds=None)
        forks = Forks(store, federation.roster, (0, 0))
        intake = Intake(store, federation.roster, (0, 0), forks, shares)
        batch = Batch(heads)
        assert intake.id_at((1, 0), 0, batch) == federation.logs[1][0].id
        assert intake.id_at((1, 0), 2, batch) is None


def test_the_branch_that_a_cut_keeps_replaces_another_one_and_says_so(tmp_path: Path) -> None:
    """What was learned of the other branch is void: whoever acts on it has to begin anew."""
    federation = Living(ALL)
    federation.open_all()
    opened, head = list(federation.logs[1]), federation.heads[1]
    federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    other = list(federation.logs[1])
    federation.logs[1], federation.heads[1] = opened, head
    for round_ in (2, 3):
        federation.write(1, Kind.METRICS, round_, federation.metrics_body(round_))
    kept = list(federation.logs[1])
    federation.rotate(1)
    with Store.open(tmp_path / "ledger.db") as store:
        store.append([*federation.logs[0], *other])
        shares = RoundShares(store, federation.roster, rounds=None)
        forks = Forks(store, federation.roster, (0, 0))
        intake = Intake(store, federation.roster, (0, 0), forks, shares)
        batch, _ = intake.take([kept[1].signed.envelope()], store.heads())
        assert not batch.is_rewritten, "more of it has to come first"
        batch, _ = intake.take([kept[2].signed.envelope()], batch.heads)
        assert batch.is_rewritten
        assert [one.id for one in store.records(author=1, epoch=0)] == [one.id for one in kept]
