"""Byzantine members: the honest service with its own keys, behind a network that lies for it.

Room: scenarios. Law: an attack uses what a real member has, its own keys and connections, and nothing
else. Attacks on learning (`bad-…`) are in learner.py. docs/simulator.md §5.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final, final

import trio

from ledger.canonical import Value, decode, encode
from ledger.chain import LogHead, compose
from ledger.errors import PeerError, SwarmError, UnavailableError, VerificationError
from ledger.record import (
    NO_ID,
    Ack,
    Aggregation,
    Contribution,
    Kind,
    Metrics,
    Reason,
    Record,
    Rejection,
    open_record,
    parse_envelope,
    sign_record,
)
from node.network import (
    FETCH_PROTOCOL,
    GOSSIP_BYTES_MAX,
    REQUEST_BYTES_MAX,
    REQUEST_PROTOCOLS,
    ROSTER_PROTOCOL,
    SYNC_PROTOCOL,
    TASK_STATUS_IGNORED,
    Handlers,
    TaskStatus,
    Traffic,
)
from node.network_memory import MemoryNetwork
from node.service import Service
from swarm.protocol.book import Proposal, RoundBook
from swarm.protocol.messages import (
    FetchRequest,
    FetchStatus,
    Part,
    decode_fetch_reply,
    decode_fetch_request,
    decode_gossip,
    decode_sync_reply,
    encode_fetch_reply,
    encode_fetch_request,
    encode_gossip,
    encode_sync_reply,
)

ATTACKS: Final = (
    "bad-merge",  # publishes another result than the inputs merge to
    "bad-nan",  # offers a model with a NaN
    "bad-shape",  # offers a model that is too short
    "bad-huge",  # offers a model that is too long
    "false-acks",  # acknowledges records that nobody wrote
    "withhold",  # serves no payload to anybody
    "withhold-some",  # serves payloads to every second member
    "corrupt",  # serves payloads with a flipped bit
    "early-fetch",  # asks for others' payloads before it has committed to its own
    "equivocate",  # signs two records for one slot and shows each to half of the others
    "forge",  # writes records in others' names
    "lying-heads",  # claims to hold what it does not, and to be anywhere
    "replay",  # sends old messages again and again
    "malform",  # sends broken copies of what it should send
    "spam",  # sends noise, as gossip and as requests of every kind
    "flood",  # writes many valid, useless records
    "slow",  # answers late or after the deadline
)
OLD_KEY: Final = "old-key"
"""What a liar does that is rotated or removed: it hears of no update, and signs on with the key that it had."""
SPAM_PAUSE_S: Final = 0.7
SPAM_BYTES_MAX: Final = 400
FORKS_MAX: Final = 2
"""Slots of its log that one life of a liar signs twice."""
FLOOD_RECORDS: Final = 400
"""More than a round of a small swarm may hold of one log."""
REMEMBERED_MAX: Final = 64
ASK_TIMEOUT_S: Final = 3.0

Leak = Callable[[int, bytes], None]
"""(who served, digest): an honest member served a payload before the asker had committed."""


@final
class LyingNetwork:
    """One liar's network (node.network.Network): what leaves is not what the service meant."""

    def __init__(
        self, inner: MemoryNetwork, own: int, attacks: tuple[str, ...], random: Random, leak: Leak
    ) -> None:
        self._inner = inner
        self._own = own
        self._attacks = frozenset(attacks)
        self._random = random
        self._leak = leak
        self._service: Service | None = None
        self._nursery: trio.Nursery | None = None
        self._heard: list[bytes] = []
        self._asked: set[bytes] = set()
        self._twins: dict[bytes, bytes] = {}
        """envelope → another record for the same slot, for every second member"""

    def serve_for(self, service: Service) -> None:
        """Take the service that this network lies for; some lies need its pen."""
        self._service = service
        if "false-acks" in self._attacks:
            journal = service.journal
            honest_acks = journal._due_acks  # noqa: SLF001 - a liar changes its own program

            def false_acks(reach: int, most: int) -> tuple[Ack, ...]:
                return tuple(
                    Ack(one.author, one.epoch, one.seq + self._random.choice((0, 7)), bytes(32))
                    for one in honest_acks(reach, most)
                )

            journal._due_acks = false_acks  # type: ignore[method-assign]  # noqa: SLF001

    # The network's side

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        """Serve, and attack meanwhile."""
        async with trio.open_nursery() as self._nursery:
            loops: Mapping[str, Callable[[], Awaitable[None]]] = {
                "spam": self._spam, "replay": self._replay, "flood": self._flood, "forge": self._forge,
            }  # fmt: skip
            for name, loop in loops.items():
                if name in self._attacks:
                    self._nursery.start_soon(self._forever, loop)
            await self._inner.run(_LyingHandlers(self, handlers), task_status=task_status)
            self._nursery.cancel_scope.cancel()

    async def broadcast(self, message: bytes) -> None:
        """Send, and perhaps something beside it."""
        if "malform" in self._attacks:
            await self._inner.broadcast(mutated(self._random, message)[:GOSSIP_BYTES_MAX])
        if "equivocate" in self._attacks:
            self._equivocate(message)
        if not self._twins:
            await self._inner.broadcast(message)
            return
        for peer in sorted(self._inner.connected()):
            await self._inner.whisper(peer, self._told_to(peer, message))

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        """Ask, and perhaps something broken first."""
        if OLD_KEY in self._attacks and protocol == ROSTER_PROTOCOL:
            await trio.lowlevel.checkpoint()
            raise UnavailableError("does not want to know")
        if "malform" in self._attacks and self._random.random() < 0.3:
            await self._quietly(peer, protocol, mutated(self._random, body))
        return await self._inner.request(
            peer, protocol, body, reply_bytes_max=reply_bytes_max, timeout_s=timeout_s
        )

    def connected(self) -> frozenset[int]:
        """As the real one."""
        return self._inner.connected()

    def last_seen_s(self) -> Mapping[int, float]:
        """As the real one."""
        return self._inner.last_seen_s()

    def traffic(self) -> Traffic:
        """As the real one."""
        return self._inner.traffic()

    # What it hears

    def hears(self, message: bytes) -> None:
        """Remember for later, and pounce on fresh contributions."""
        if len(self._heard) < REMEMBERED_MAX:
            self._heard.append(message)
        else:
            self._heard[self._random.randrange(REMEMBERED_MAX)] = message
        if "early-fetch" in self._attacks and self._service is not None and self._nursery:
            for record in _records(message, self._service):
                if record.kind == Kind.CONTRIBUTION and record.author != self._own:
                    self._nursery.start_soon(self._fetch_early, record)

    async def answer(self, peer: int, protocol: str, body: bytes, reply: bytes) -> bytes:
        """Turn the honest reply into a lie."""
        has = self._attacks.__contains__
        if has("slow"):
            await trio.sleep(self._random.choice((2.0, 8.0, 25.0)))
        if protocol == FETCH_PROTOCOL:
            if has("withhold") or (has("withhold-some") and peer % 2):
                return encode_fetch_reply(FetchStatus.NOT_HELD)
            if has("corrupt") and _asks_for_chunk(body) and len(reply) > 1:
                return flipped(self._random, reply, start=1)
        if protocol == SYNC_PROTOCOL and self._twins and reply:
            honest = decode_sync_reply(reply)
            reply = encode_sync_reply(
                replace(honest, envelopes=tuple(self._shown_to(peer, honest.envelopes)))
            )
        if protocol == SYNC_PROTOCOL and has("lying-heads") and reply:
            return self._lying_heads(reply)
        if has("malform") and self._random.random() < 0.5:
            return mutated(self._random, reply)
        return reply

    def _lying_heads(self, reply: bytes) -> bytes:
        """Claim other counts for every log, a round far away, and bring nothing."""
        match decode(reply, bytes_max=REQUEST_BYTES_MAX):
            case [version, [list(heads), *_], *_]:
                lies: list[Value] = [
                    [*head[:2], self._random.choice((1, 3, 1 << 40)), *head[3:]]
                    for head in heads
                    if isinstance(head, list)
                ]
                return encode([version, [lies, 1 << 40, 250, 1], []])
            case _:
                return reply

    def _told_to(self, peer: int, message: bytes) -> bytes:
        return encode_gossip(self._shown_to(peer, decode_gossip(message)))

    def _shown_to(self, peer: int, envelopes: Sequence[bytes]) -> list[bytes]:
        """Show every second member the twins."""
        return [self._twins.get(one, one) if peer % 2 else one for one in envelopes]

    def _equivocate(self, message: bytes) -> None:
        """Sign another record for the slot of an own one, now and then."""
        service = self._service
        if service is None or len(self._twins) >= FORKS_MAX or self._random.random() < 0.6:
            return
        for record in _records(message, service):
            if record.author == self._own and record.seq:
                twin = twin_of(record, service.book, self._random)
                signer = service.journal._signer  # noqa: SLF001 - its own key
                (envelope,) = decode_gossip(message)
                self._twins[envelope] = sign_record(twin, signer).signed.envelope()

    # Attacks of its own

    async def _forever(self, attack: Callable[[], Awaitable[None]]) -> None:
        while True:
            await trio.sleep(SPAM_PAUSE_S * self._random.uniform(0.5, 1.5))
            await attack()

    async def _spam(self) -> None:
        for peer in sorted(self._inner.connected()):
            noise = self._random.randbytes(self._random.randint(1, SPAM_BYTES_MAX))
            await self._inner.whisper(peer, noise)
            await self._quietly(peer, self._random.choice(REQUEST_PROTOCOLS), noise)

    async def _replay(self) -> None:
        for message in self._random.sample(self._heard, min(3, len(self._heard))):
            # One byte of difference at the end of the outer list would not parse, so: as it was.
            for peer in sorted(self._inner.connected()):
                await self._inner.whisper(peer, message)

    async def _flood(self) -> None:
        service = self._service
        if service is None or (self._own, 0) not in service.journal.heads():
            return
        head = service.journal.heads()[self._own, 0]
        if head.next_seq > FLOOD_RECORDS:
            return
        for _ in range(10):
            body = Rejection(target_id=self._random.randbytes(32), reason=Reason.NOT_FINITE)
            record = await service.journal.append(Kind.REJECTION, head.round, body)
            await self._inner.broadcast(encode_gossip([record.signed.envelope()]))

    async def _forge(self) -> None:
        """Write the next record of another member's log, signed with the only key at hand."""
        service = self._service
        if service is None:
            return
        victim = self._random.choice([m for m in range(service.book.roster.n) if m != self._own])
        head: LogHead | None = service.journal.heads().get((victim, 0))
        if head is None:
            return
        body = Metrics(round=head.round, model_digest=NO_ID, values=())
        record = compose(
            head, roster=service.book.roster, author=victim, epoch=0, kind=Kind.METRICS,
            round=head.round, time_ms=head.time_ms, acks=(), body=body,
        )  # fmt: skip
        signed = sign_record(record, service.journal._signer)  # noqa: SLF001 - the liar's own key
        await self._inner.broadcast(encode_gossip([signed.signed.envelope()]))

    async def _fetch_early(self, record: Record) -> None:
        service, body = self._service, record.body
        if (
            service is None
            or not isinstance(body, Contribution)
            or body.update_digest in self._asked
        ):
            return
        self._asked.add(body.update_digest)
        book = service.book
        since = min(  # who trains twice from one model offers the same payload in two rounds
            round_
            for round_ in range(record.round + 1)
            if round_ == record.round
            or any(one.digest == body.update_digest for one in book.offers(round_).values())
        )
        for part in (Part.MANIFEST, Part.CHUNK):
            if book.last_offer_round(self._own) >= since:
                return  # from now on it is entitled: whoever is further copies nothing any more
            request = encode_fetch_request(
                FetchRequest(digest=body.update_digest, part=part, index=0)
            )
            reply = await self._quietly(record.author, FETCH_PROTOCOL, request)
            if reply is None or book.last_offer_round(self._own) >= since:
                return
            try:
                status, _ = decode_fetch_reply(reply)
            except PeerError:
                return
            if status is FetchStatus.OK:
                self._leak(record.author, body.update_digest)

    async def _quietly(self, peer: int, protocol: str, body: bytes) -> bytes | None:
        try:
            return await self._inner.request(
                peer, protocol, body[:REQUEST_BYTES_MAX],
                reply_bytes_max=REQUEST_BYTES_MAX, timeout_s=ASK_TIMEOUT_S,
            )  # fmt: skip
        except (UnavailableError, PeerError):
            return None


@final
class _LyingHandlers:
    def __init__(self, network: LyingNetwork, honest: Handlers) -> None:
        self._network = network
        self._honest = honest

    async def on_gossip(self, peer: int, message: bytes) -> None:
        self._network.hears(message)
        await self._honest.on_gossip(peer, message)

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        try:
            reply = await self._honest.on_request(peer, protocol, body)
        except SwarmError:
            reply = b""
        return await self._network.answer(peer, protocol, body, reply)


def twin_of(record: Record, book: RoundBook, random: Random) -> Record:
    """Return another record for the same slot, as plausible: the votes of others, other samples, or time."""
    match record.body:
        case Aggregation() as body:
            own = Proposal(body.rule, body.inputs, body.result_digest)
            others = [one for _, one in sorted(book.votes(record.round).items()) if one != own]
            if others:  # to each half what it wants to hear
                other = random.choice(others)
                here = {book_input.id for book_input in other.inputs}
                authors = {offer.author for one in here if (offer := book.offer(one)) is not None}
                body = replace(
                    body, rule=other.rule, inputs=other.inputs, result_digest=other.result,
                    left_out=tuple(one for one in body.left_out if one.author not in authors),
                )  # fmt: skip
            else:
                body = replace(body, result_digest=random.randbytes(32))
            return replace(record, body=body)
        case Contribution() as body if random.random() < 0.5:
            return replace(record, body=replace(body, samples=body.samples + 1))
        case _:
            return replace(record, time_ms=record.time_ms ^ 1)


def flipped(random: Random, data: bytes, *, start: int = 0) -> bytes:
    """Flip one bit at or after ``start``."""
    at = random.randrange(start, len(data))
    return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]


def mutated(random: Random, data: bytes) -> bytes:
    """Break a message as a bug, a bad wire or a fuzzer would; never empty."""
    match random.randrange(5):
        case 0 if data:
            return flipped(random, data)
        case 1 if len(data) > 1:
            return data[: random.randrange(1, len(data))]
        case 2:
            return data + random.randbytes(random.randint(1, 9))
        case 3 if len(data) > 8:
            at = random.randrange(len(data) - 4)
            return data[:at] + random.randbytes(4) + data[at + 4 :]
        case _:
            return random.randbytes(random.randint(1, 64))


def _asks_for_chunk(body: bytes) -> bool:
    try:
        return decode_fetch_request(body).part is Part.CHUNK
    except PeerError:
        return False


def _records(message: bytes, service: Service) -> list[Record]:
    records = []
    try:
        for envelope in decode_gossip(message):
            signed = parse_envelope(envelope)
            records.append(open_record(signed, roster=service.book.roster).value)
    except (PeerError, VerificationError):
        return records
    return records
