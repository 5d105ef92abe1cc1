"""What the hospitals say of a round's model, from one node's store: each, all together, and by subgroup.

Room: node. Law: each hospital measured its own patients; means are weighted by the patients that it says it
has. Reads the store beside a running node and writes nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

from ledger.charter import Charter
from ledger.errors import ConfigError
from ledger.pooling import pool, pool_groups
from ledger.record import GroupValue, MetricId, Metrics, MetricValue, open_record
from ledger.roster import Roster
from ledger.roster_store import load_roster
from ledger.store import Store
from ledger.subgroups import part_name
from node.config import SiteConfig, load_site_charter
from swarm.protocol.book import RoundBook
from swarm.protocol.stopping import Stopping

MICRO: Final = 1_000_000
Measured = dict[str, Any]


def metrics_json(values: Mapping[int, MetricValue | GroupValue]) -> Measured:
    """Metric by name: value, 95 % interval, patients."""
    return {
        MetricId(metric).name.lower(): {
            "value": one.micro / MICRO,
            "low": one.low_micro / MICRO,
            "high": one.high_micro / MICRO,
            "count": one.count,
        }
        for metric, one in sorted(values.items())
    }


def groups_json(charter: Charter, groups: tuple[GroupValue, ...]) -> list[Measured]:
    """One hospital's subgroups: which, and the metrics of each."""
    parts: dict[tuple[int, int], dict[int, GroupValue]] = {}
    for one in groups:
        parts.setdefault((one.subgroup, one.part), {})[one.metric] = one
    return [
        {"subgroup": part_name(charter.schema, *part), "metrics": metrics_json(values)}
        for part, values in sorted(parts.items())
    ]


def read_measured(config: SiteConfig, round_: int | None = None) -> Measured:
    """Fold every METRICS of one round: the newest that anybody measured, unless one is named.

    Raises ConfigError when nobody measured it.
    """
    charter = load_site_charter(config)
    if not config.paths.ledger.exists():
        raise ConfigError(f"{config.paths.ledger} does not exist: this site has not run yet")
    found: dict[int, dict[int, Metrics]] = {}
    with Store.open(config.paths.ledger, read_only=True) as store:
        roster = load_roster(store, charter)
        book = RoundBook(roster, is_gossip=charter.aggregation.is_gossip)
        for signed in store.records():
            record = open_record(signed, roster=roster)
            book.learn(record)
            if isinstance(body := record.value.body, Metrics):
                found.setdefault(record.value.round, {})[record.value.author] = body
    number = max(found, default=None) if round_ is None else round_
    if number is None or number not in found:
        raise ConfigError(
            "no hospital has measured " + (f"round {number}" if number else "anything")
        )
    return _measured(charter, roster, book, number, found[number])


def _measured(
    charter: Charter, roster: Roster, book: RoundBook, number: int, by: Mapping[int, Metrics]
) -> Measured:
    stopping = Stopping(book, charter.stopping, rounds=charter.rounds.rounds)
    released = stopping.released()
    return {
        "round": number,
        "released_round": released.round if released else None,
        "stopped_round": stopping.standing().stopped,
        "members": [
            {
                "name": roster.member(author).name,
                "model_digest": body.model_digest.hex(),
                "metrics": metrics_json({one.metric: one for one in body.values}),
                "subgroups": groups_json(charter, body.groups),
            }
            for author, body in sorted(by.items())
        ],
        "pooled": metrics_json(pool(body.values for body in by.values())),
        "subgroups": [
            {"subgroup": part_name(charter.schema, *part), "metrics": metrics_json(values)}
            for part, values in pool_groups(body.groups for body in by.values()).items()
        ],
    }
