"""What is left of a case when its nodes have ended: their stores, their logs, the audit of their bundles.

Room: scenarios. Reads files; verdict.py judges what it read.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.charter import Charter
from ledger.record import open_record
from ledger.roster_store import load_roster
from ledger.store import Store
from node.config import load_site
from scenarios.audit import audit
from scenarios.faults.federation import Federation
from scenarios.faults.logs import Line
from scenarios.main_job import export_bundles
from swarm.protocol.book import RoundBook


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """What one member's own store says at the end. Rounds above zero; results are hexadecimal."""

    agreed: Mapping[int, str]
    """round → result"""
    merged: Mapping[int, frozenset[int]]
    """round → whose updates the agreed result has among its inputs"""
    published: Mapping[tuple[int, int], str]
    """(author, round) → the result that it published"""
    offered: Mapping[int, frozenset[int]]
    """author → rounds that it contributed to"""
    used: Mapping[int, frozenset[int]]
    """author → those of them whose contribution somebody else merged"""
    model: str
    """Digest of the model that it ended with."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that a verdict rests on. By member's place."""

    charter: Charter
    names: Sequence[str]
    ledgers: Sequence[Ledger]
    logs: Sequence[Sequence[Line]]
    audit: str
    """The auditor's verdict over all bundles."""

    @property
    def members(self) -> range:
        """Their places."""
        return range(len(self.ledgers))


def read_ledger(path: Path, charter: Charter, member: int) -> Ledger:
    """Read a member's store."""
    with Store.open(path, read_only=True) as store:
        book = RoundBook(load_roster(store, charter), is_gossip=charter.aggregation.is_gossip)
        for signed in store.records():
            book.learn(open_record(signed, roster=book.roster))
    agreed = [one for r in book.agreed_rounds() if r > 0 and (one := book.agreed(r)) is not None]
    offered: dict[int, set[int]] = defaultdict(set)
    used: dict[int, set[int]] = defaultdict(set)
    published: dict[tuple[int, int], str] = {}
    for round_ in range(1, charter.rounds.rounds + 1):
        for author in book.offers(round_):
            offered[author].add(round_)
        for author, vote in book.votes(round_).items():
            published[author, round_] = vote.result.hex()
            for given in vote.inputs:
                offer = book.offer(given.id)
                if offer is not None and offer.author != author:
                    used[offer.author].add(offer.round)
    model = book.latest_model(member)
    return Ledger(
        agreed={one.round: one.proposal.result.hex() for one in agreed},
        merged={
            one.round: frozenset(given.author for given in one.proposal.inputs) for one in agreed
        },
        published=published,
        offered={author: frozenset(rounds) for author, rounds in offered.items()},
        used={author: frozenset(rounds) for author, rounds in used.items()},
        model=model[1].hex() if model else "",
    )


def gather(federation: Federation, logs: Sequence[Sequence[Line]]) -> Evidence:
    """Read every store, export every bundle, let the auditor look at them. Raises ScenarioError."""
    report = audit(
        export_bundles(federation.job),
        charter=federation.job.charter,
        charter_digest=federation.digest,
    )
    return Evidence(
        charter=federation.charter,
        names=[site.name for site in federation.sites],
        ledgers=[
            read_ledger(load_site(site.config).paths.ledger, federation.charter, member)
            for member, site in enumerate(federation.sites)
        ],
        logs=logs,
        audit=report.verdict,
    )
