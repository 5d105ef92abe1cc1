"""A swarm on paper: real round machines, real signed records, and nothing else.

Virtual time, no network, no tensors: what the machines want is performed by the rules of docs/wire.md, a
record at a time, so that hundreds of faulty swarms run in a second. One seed, one course of events.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from ledger.charter import StoppingPolicy
from ledger.record import Aggregation, Contribution, Input, Record, Verified
from ledger.weights import weights_micro
from swarm.protocol.book import Offer, RoundBook
from swarm.protocol.effects import (
    Adopt,
    Effect,
    Evaluate,
    Fetch,
    GiveUp,
    Merge,
    SignClose,
    SignOpen,
    Train,
)
from swarm.protocol.position import NEVER
from swarm.protocol.round import Phase, Place, RoundMachine
from swarm.protocol.stalls import Stalls, Standing
from tests.federation import INITIAL, PAYLOAD_BYTES, Author, Federation, digest_of, result_of

SYNC_S = 1.0
STEP_S = 0.1


@dataclass(kw_only=True)
class Site:
    """One hospital: its machine, and how fast or faulty it is."""

    author: Author
    machine: RoundMachine
    train_s: float = 1.0
    fetch_s: float = 0.1
    """How long one payload takes to come in here; many may come at once."""
    serves: bool = True
    serves_only: frozenset[int] | None = None
    trickles: bool = False
    """What it offers comes in for ever, byte by byte."""
    same_data: bool = False
    learns: bool = True
    alive: bool = True
    failure: tuple[str, ...] = ()
    wake_s: float = 0.0
    running: dict[Effect, float] = field(default_factory=dict)
    log: list[tuple[float, str]] = field(default_factory=list)

    @property
    def index(self) -> int:
        return self.author.index


class PaperSwarm:
    """Everybody at one table."""

    def __init__(
        self,
        count: int,
        *,
        seed: int = 1,
        delay_s: float = 0.05,
        jitter_s: float = 0.0,
        sync_s: float = SYNC_S,
        has_moments: bool = False,
        absent: Iterable[int] = (),
        stopping: StoppingPolicy = NEVER,
        loss: Callable[[int, int], float] | None = None,
        **policy: object,
    ) -> None:
        """Seat everybody. loss: of an author after a round, as its METRICS say it."""
        self.random = Random(seed)
        self.now_s = 0.0
        self.federation = Federation(count, **policy)
        self.written: list[Verified[Record]] = []
        self.groups: list[set[int]] = [set(range(count))]
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self._has_moments = has_moments
        self._stopping, self._loss = stopping, loss
        self._sync_s = sync_s
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = 0
        self.sites = [self._site(index) for index in range(count)]
        for index in absent:
            self.sites[index].alive = False
        for site in self.sites:
            self.after(sync_s * self.random.random(), lambda site=site: self._sync(site))

    def _site(self, index: int) -> Site:
        federation = self.federation
        book = RoundBook(
            federation.roster,
            contribution_first=federation.charter.rounds.newcomers == "contribution_first",
            is_gossip=federation.charter.topology is not None,
            commit_lag=federation.charter.rounds.staleness_max
            if federation.charter.aggregation.is_buffered
            else 0,
        )
        place = Place(
            own=index,
            policy=federation.charter.rounds,
            aggregation=federation.charter.aggregation,
            has_moments=self._has_moments,
            initial=INITIAL,
            linger_s=120.0,
            topology=federation.charter.topology,
            stopping=self._stopping,
        )
        machine = RoundMachine(place, book, now_s=self.now_s)
        site = Site(author=federation[index], machine=machine)
        self._keep(site, INITIAL)
        return site

    def __getitem__(self, index: int) -> Site:
        return self.sites[index]

    # Faults

    def kill(self, index: int) -> None:
        self.sites[index].alive = False
        self.sites[index].running.clear()

    def restart(self, index: int) -> None:
        """A new machine from what the old one had stored."""
        old = self.sites[index]
        new = self._site(index)
        new.train_s, new.fetch_s, new.log = old.train_s, old.fetch_s, old.log
        for record in self.written:
            if self._has(old, record):
                self._learn(new, record)
        for digest, (codec, bytes_count) in old.machine.position.held.items():
            new.machine.hold(digest, codec=codec, bytes_count=bytes_count)
        self.sites[index] = new
        self.after(self._sync_s * self.random.random(), lambda: self._sync(new))

    def partition(self, *groups: Iterable[int]) -> None:
        self.groups = [set(group) for group in groups]

    def heal(self) -> None:
        self.groups = [set(range(len(self.sites)))]

    def connected(self, a: int, b: int) -> bool:
        together = any(a in group and b in group for group in self.groups)
        return self.sites[a].alive and self.sites[b].alive and together

    # Time

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._counter += 1
        heapq.heappush(self._due, (self.now_s + seconds, self._counter, action))

    def run(self, until_s: float, *, stop: Callable[[], bool] | None = None) -> None:
        """Let things happen until a moment, or until ``stop`` says so, or everybody is done."""
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._due)
            action()
            if (stop and stop()) or all(
                site.machine.phase is Phase.DONE for site in self.sites if site.alive
            ):
                return
        self.now_s = until_s

    def _advance(self, site: Site) -> None:
        if not site.alive or site is not self.sites[site.index] or site.failure:
            return
        before = (site.machine.round, site.machine.phase)
        wanted = site.machine.advance(now_s=self.now_s)
        if (site.machine.round, site.machine.phase) != before:
            site.log.append((self.now_s, f"{site.machine.round} {site.machine.phase.name}"))
        for effect in set(site.running) - set(wanted.effects):
            del site.running[effect]
        for effect in wanted.effects:
            writes = [one for one in site.running if not isinstance(one, Fetch)]
            if effect not in site.running and (isinstance(effect, Fetch) or not writes):
                self._begin(site, effect)
        wake_s = wanted.wake_s
        if wake_s is not None and wake_s > self.now_s and site.wake_s != wake_s:
            site.wake_s = wake_s
            self.after(wake_s - self.now_s, lambda: self._advance(site))

    def _begin(self, site: Site, effect: Effect) -> None:
        seconds = self._takes_s(site, effect)
        site.running[effect] = due_s = self.now_s + seconds
        self.after(seconds, lambda: self._end(site, effect, due_s))

    def _takes_s(self, site: Site, effect: Effect) -> float:
        match effect:
            case Train(round=0):
                return STEP_S
            case Train():
                return site.train_s
            case Fetch():
                return site.fetch_s
            case _:
                return STEP_S

    def _end(self, site: Site, effect: Effect, due_s: float) -> None:
        if site is not self.sites[site.index] or site.running.get(effect) != due_s:
            return  # it was cancelled and perhaps begun again
        if isinstance(effect, Fetch):
            trickles = effect.offer is not None and self.sites[effect.offer.author].trickles
            if trickles or self._source(site, effect.digest) is None:
                self._begin(site, effect)
                return
            offer = effect.offer
            codec = offer.codec if offer else self._codec(effect.digest)
            self._keep(site, effect.digest, codec)
        else:
            self._write(site, effect)
        site.running.pop(effect, None)
        self._advance(site)

    # Work

    def _codec(self, digest: bytes) -> int:
        agreed = self.sites[0].machine.book.agreed(0) if self._has_moments else None
        return 2 if agreed and agreed.proposal.result == digest else 1

    def _keep(self, site: Site, digest: bytes, codec: int = 1) -> None:
        site.machine.hold(digest, codec=codec, bytes_count=PAYLOAD_BYTES)

    def _source(self, site: Site, digest: bytes) -> int | None:
        for other in self.sites:
            if (
                other is not site
                and other.serves
                and (other.serves_only is None or site.index in other.serves_only)
                and self.connected(site.index, other.index)
                and digest in other.machine.position.held
                and other.machine.book.may_fetch(site.index, digest, server=other.index)
            ):
                return other.index
        return None

    def _merged(self, site: Site, effect: Merge) -> Verified[Record]:
        inputs = self._inputs(effect.round, effect.offers)
        result = result_of(effect.round, inputs)
        if effect.round and site.machine.near is not None:
            result = digest_of("of its own", result, site.index)
        self._keep(site, result, 1 if effect.round else 2)
        return site.author.vote(
            effect.round, inputs, ballot=effect.ballot, left_out=effect.left_out, result=result
        )

    def _write(self, site: Site, effect: Effect) -> None:
        author, book = site.author, site.machine.book
        match effect:
            case SignOpen():
                record = author.open()
            case Train(round=round_, base=base):
                digest = digest_of("the same", round_) if site.same_data else None
                digest = digest if site.learns else base or INITIAL
                round_ = site.machine.offer_round(round_)
                record = author.contribute(round_, base=base or INITIAL, digest=digest)
                body = record.value.body
                assert isinstance(body, Contribution)
                self._keep(site, body.update_digest, body.codec)
            case Merge():
                record = self._merged(site, effect)
            case Adopt(proposal=one, ballot=ballot):
                record = author.vote(
                    0, one.inputs, ballot=ballot, left_out=effect.left_out, result=one.result
                )
            case Evaluate(round=round_, model=model):
                loss = self._loss(site.index, round_) if self._loss else None
                micro = None if loss is None else round(loss * 1_000_000)
                record = author.evaluate(round_, model, loss_micro=micro)
            case SignClose(round=round_):
                record = author.close(round_)
            case GiveUp(missing=missing):
                site.failure = missing
                site.running.clear()
                site.alive = False
                return
            case _:
                raise AssertionError(effect)
        self.written.append(record)
        self._learn(site, record)
        assert book is site.machine.book
        for other in self.sites:
            if self.connected(site.index, other.index):
                delay_s = self._delay_s + self._jitter_s * self.random.random()
                self.after(delay_s, lambda o=other: self._deliver(o, record))

    def _inputs(self, round_: int, offers: Sequence[Offer]) -> list[Input]:
        weights = [0] * len(offers)
        if round_:
            weights = weights_micro(
                [offer.samples for offer in offers],
                self.federation.charter.aggregation,
                staleness_rounds=[round_ - offer.round for offer in offers],
            )
        return [
            Input(author=o.author, epoch=o.epoch, seq=o.seq, id=o.id, weight_micro=weight)
            for o, weight in zip(offers, weights, strict=True)
        ]

    # Records

    def _has(self, site: Site, record: Verified[Record]) -> bool:
        return record.id in self._ids(site)

    def _ids(self, site: Site) -> set[bytes]:
        ids = getattr(site, "_ids", None)
        if ids is None:
            ids = site._ids = set()  # type: ignore[attr-defined]
        return ids

    def _learn(self, site: Site, record: Verified[Record]) -> None:
        self._ids(site).add(record.id)
        site.machine.learn(record)

    def _deliver(self, site: Site, record: Verified[Record]) -> None:
        """Store what is next in its log and names nothing unknown; a comparison repairs the rest."""
        ids, value = self._ids(site), record.value
        if record.id in ids or site is not self.sites[site.index] or not site.alive:
            return
        named = [one.id for one in value.body.inputs] if isinstance(value.body, Aggregation) else []
        if (value.seq and value.prev not in ids) or not ids.issuperset(named):
            return
        self._learn(site, record)
        self._advance(site)

    def _sync(self, site: Site) -> None:
        """Compare with everybody who can be reached; look at downloads that do not move."""
        if site is not self.sites[site.index]:
            return
        if site.alive:
            for other in self.sites:
                if other is not site and self.connected(site.index, other.index):
                    missing = self._ids(other) - self._ids(site)
                    for record in self.written if missing else ():
                        if record.id in missing:
                            self._deliver(site, record)
                    site.machine.synced(other.index)
            stalls = site.__dict__.setdefault("_stalls", Stalls())
            under_way = {
                effect.digest: Standing(int(10 * self.now_s), has_manifest=True)
                if self._source(site, effect.digest) is not None
                else Standing(0, has_manifest=False)
                for effect in site.running
                if isinstance(effect, Fetch)
            }
            grace_s = site.machine.grace_s
            stalled = stalls.look(under_way, now_s=self.now_s, grace_s=grace_s)
            site.machine.stalled(stalled)
            self._advance(site)
        self.after(self._sync_s * self.random.uniform(0.75, 1.25), lambda: self._sync(site))

    # What came out

    def agreed(self, index: int = 0) -> dict[int, dict[int, int]]:
        """Per agreed round: author → round of its input."""
        book = self.sites[index].machine.book
        found = {}
        for round_ in book.agreed_rounds():
            agreed = book.agreed(round_)
            assert agreed is not None
            offers = [book.offer(one.id) for one in agreed.proposal.inputs]
            found[round_] = {offer.author: offer.round for offer in offers if offer}
        return found

    def merges(self, index: int) -> list[tuple[int, Aggregation]]:
        """Every AGGREGATION of one author, with its round."""
        values = [record.value for record in self.federation[index].records]
        return [(one.round, one.body) for one in values if isinstance(one.body, Aggregation)]

    def models(self) -> set[bytes]:
        return {site.machine.model for site in self.sites if site.alive}

    def done(self) -> bool:
        return all(site.machine.phase is Phase.DONE for site in self.sites if site.alive)

    def course(self) -> str:
        """What happened, for whoever reads a failure."""
        lines = []
        for site in self.sites:
            told = " ".join(f"{at:.1f}:{what}" for at, what in site.log[-40:])
            lines.append(f"{site.index} {'alive' if site.alive else 'dead'} {told}")
        return "\n".join(lines)
