"""Payloads that an offer names: what is refused, and what stays although the offer is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exchanging import PAYLOAD, Node, nodes
from trio.testing import MockClock

from ledger.errors import PeerError
from ledger.record import Codec, Reason, Rejection
from node.effects.obtaining import obtain
from swarm.protocol.effects import Fetch
from swarm.protocol.messages import FetchRequest, Part
from swarm.protocol.payload import chunk_count, payload_digest
from tests.federation import Federation

AUTHOR, LIAR, OWN = 0, 1, 2


def desk_of(node: Node, federation: Federation, written: list[Rejection]) -> Any:
    """As much of a desk as obtaining needs; the learner takes everything, of any length."""

    async def reject(body: Rejection, _round: int) -> None:
        written.append(body)

    learner = SimpleNamespace(update_bytes=(0, 1 << 30), check=lambda _payload, _codec: None)
    return SimpleNamespace(
        hospital=SimpleNamespace(charter=federation.charter, learner=learner),
        machine=SimpleNamespace(round=1),
        world=node.transfer._world,
        transfer=node.transfer,
        book=node.book,
        reject=reject,
        hold=lambda *_: None,
        changed=lambda: None,
    )


@pytest.mark.parametrize(
    ("round_", "codec", "more"), [(1, Codec.FLOAT32, 1_000), (0, Codec.MOMENTS, 0)]
)
async def test_a_false_offer_of_anothers_payload_does_not_have_it_fetched_twice(
    tmp_path: Path, autojump_clock: MockClock, round_: int, codec: Codec, more: int
) -> None:
    """The liar says more bytes, or in round 1 that somebody's moments are an update."""
    federation = Federation(4)
    federation.open_all()
    digest = payload_digest(codec, PAYLOAD)
    true = federation[AUTHOR].contribute(round_, digest=digest, bytes_count=len(PAYLOAD))
    false = federation[LIAR].contribute(1, digest=digest, bytes_count=len(PAYLOAD) + more)
    async with nodes(federation, tmp_path, indices=(AUTHOR, OWN), syncing=False) as (_, made, _n):
        made[AUTHOR].blobs.put(codec, PAYLOAD)
        asked: list[Part] = []
        serve = made[AUTHOR].transfer._part

        def counted(request: FetchRequest) -> bytes | None:
            asked.append(request.part)
            return serve(request)

        made[AUTHOR].transfer._part = counted  # type: ignore[method-assign]
        node, written = made[OWN], list[Rejection]()
        desk = desk_of(node, federation, written)
        for record in (true, false):
            node.book.learn(record)
        for record in (false, true):
            offer = node.book.offer(record.id)
            await obtain(desk, Fetch(digest=digest, sources=(AUTHOR,), offer=offer))
            if record is false:
                assert node.blobs.stored() == {}, "what nobody has checked is not held"
        assert [(one.target_id, one.reason) for one in written] == [(false.id, Reason.BAD_SHAPE)]
        assert node.blobs.get(digest) == PAYLOAD
        assert asked.count(Part.CHUNK) == chunk_count(len(PAYLOAD))


async def test_a_payload_that_is_bad_itself_is_removed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    federation.open_all()
    digest = payload_digest(Codec.FLOAT32, PAYLOAD)
    offered = federation[AUTHOR].contribute(1, digest=digest, bytes_count=len(PAYLOAD))
    async with nodes(federation, tmp_path, indices=(AUTHOR, OWN), syncing=False) as (_, made, _n):
        made[AUTHOR].blobs.put(Codec.FLOAT32, PAYLOAD)
        node, written = made[OWN], list[Rejection]()
        desk = desk_of(node, federation, written)

        def bad(_payload: bytes, _codec: int) -> None:
            raise PeerError("not an update")

        desk.hospital.learner.check = bad
        node.book.learn(offered)
        offer = node.book.offer(offered.id)
        await obtain(desk, Fetch(digest=digest, sources=(AUTHOR,), offer=offer))
        assert [one.reason for one in written] == [Reason.BAD_SHAPE]
        assert not node.blobs.incoming()
        assert node.blobs.stored() == {}
