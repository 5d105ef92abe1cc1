"""What a node says of itself to its operator: through a Unix socket while it runs, else from its store.

*registered* = on the roster; *configured* = has signed the charter; *training* = contributes to the
rounds of now; *merged* = was an input of the newest agreed result, or, where sites average with their
neighbours, of this site's own newest. Four words, never one for another.
"""

import json
import os
import resource
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from ledger.charter import Charter
from ledger.errors import UnavailableError
from ledger.record import GroupValue, MetricId, Metrics, MetricValue, Record, Verified, open_record
from ledger.roster import Roster
from node.measured import groups_json
from node.overview import overview_facts
from node.status_network import network_facts, ways
from node.telemetry import get_log
from swarm.protocol.book import RoundBook
from swarm.protocol.stopping import Stopping

if TYPE_CHECKING:
    from node.config import SiteConfig
    from node.service import Service

ANSWER_BYTES_MAX: Final = 1 << 20
ANSWER_TIMEOUT_S: Final = 3.0
MICRO: Final = 1_000_000
FAILED: Final = "error"
"""The only key of an answer that is none: what went wrong."""

Status = dict[str, Any]


def read_status(config: "SiteConfig") -> Status:
    """Ask the running node; if none runs, read its store.

    Raises ConfigError, StoreError; UnavailableError when it runs and cannot say where it stands.
    """
    answer = ask(config.paths.socket) or stored_status(config)
    if FAILED in answer:
        raise UnavailableError(f"the node runs, and its status failed: {answer[FAILED]}")
    return answer


def ask(path: Path) -> Status | None:
    """Ask the node that listens on ``path``; None when nobody answers there, {FAILED: why} for no status."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(ANSWER_TIMEOUT_S)
            line.connect(os.fspath(path))
            answer = b""
            while chunk := line.recv(65_536):
                answer += chunk
                if len(answer) > ANSWER_BYTES_MAX:
                    return {FAILED: f"it is longer than {ANSWER_BYTES_MAX} bytes"}
    except OSError:
        return None
    return json.loads(answer) if answer else None


async def serve_status(path: Path, describe: Callable[[], Status]) -> None:
    """Answer everybody who may open the socket file (its owner) until cancelled."""
    _remove(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
        before = os.umask(0o177)
        try:
            plain.bind(os.fspath(path))
        finally:
            os.umask(before)
        plain.listen()  # at once: whoever sees the file may connect
        listener = trio.socket.from_stdlib_socket(plain)

        async def answer(stream: trio.SocketStream) -> None:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                try:
                    await stream.send_all(_answer(describe))
                except trio.BrokenResourceError:
                    return
                await stream.aclose()

        try:
            await trio.serve_listeners(answer, [trio.SocketListener(listener)])
        finally:
            _remove(path)


def _answer(describe: Callable[[], Status]) -> bytes:
    """Describe the node; a mistake in that is told, and does not end the node."""
    try:
        return json.dumps(describe()).encode()
    except Exception as error:  # noqa: BLE001 - whatever it is, only the asker has to know
        get_log().exception("status_failed")
        return json.dumps({FAILED: repr(error)}).encode()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def running_status(config: "SiteConfig", service: "Service") -> Status:
    """Describe a node from inside it."""
    machine, network = service.machine, service.network
    now_s = trio.current_time()
    seen_s = network.last_seen_s()
    traffic = network.traffic()
    members = service.book.roster.members
    corrupted = service.transfer.corrupted()
    way = ways(network, {member.index: member.name for member in members})
    live = {
        peer: {
            "reached": None if peer == service.own else way[peer],
            "connected": peer in network.connected(),
            "last_seen_s": round(now_s - seen_s[peer], 1) if peer in seen_s else None,
            "corrupted": corrupted.get(peer, 0),
        }
        for peer in range(len(members))
    }
    status = _describe(config.name, service.charter, service.book, service.own, live)
    status.update(_metrics(service.metrics))
    status.update(subgroups=groups_json(service.charter, service.groups))
    status.update(
        running=True,
        pid=os.getpid(),
        phase=machine.phase.name.lower(),
        round=machine.round,
        waiting_for=service.waiting_for(),
        model_digest=machine.model.hex(),
        bytes_sent=traffic.bytes_sent,
        bytes_received=traffic.bytes_received,
        network=network_facts(network, service.exchange.heard),
        transfers=[
            one.to_json(None if one.member is None else members[one.member].name)
            for one in service.transfer.progress()
        ],
        reputation=overview_facts(service.overview.insight),
        payload_bytes=service.transfer.blobs.bytes_stored,
        payload_bytes_max=service.transfer.blobs.bytes_max,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )
    return status


def stored_status(config: "SiteConfig") -> Status:
    """Describe a node that does not run from its store alone."""
    from ledger.roster_store import load_roster
    from ledger.store import Store
    from node.config import load_site_charter
    from node.forks import Forks
    from node.identity import load_identity, own_place

    charter = load_site_charter(config)
    identity = load_identity(config.paths)
    is_gossip = charter.aggregation.is_gossip
    book = RoundBook(Roster.from_charter(charter), is_gossip=is_gossip)
    metrics: tuple[MetricValue, ...] = ()
    groups: tuple[GroupValue, ...] = ()
    last: Verified[Record] | None = None
    if config.paths.ledger.exists():
        with Store.open(config.paths.ledger, read_only=True) as store:
            book = RoundBook(load_roster(store, charter), is_gossip=is_gossip)
            own = own_place(book.roster, identity).author
            forks = Forks(store, book.roster, (own, book.roster.epoch(own)))
            for signed in store.records():
                record = open_record(signed, roster=book.roster)
                book.learn(record)
                forks.stored(record)
                if record.value.author == own:
                    last = record
                    body = record.value.body
                    if isinstance(body, Metrics):
                        metrics, groups = body.values, body.groups
            for fork in forks.take_news():
                book.freeze(fork.author, fork.epoch, fork.seq)
    else:
        own = own_place(book.roster, identity).author
    status = _describe(config.name, charter, book, own, {})
    status.update(_metrics(metrics))
    status.update(subgroups=groups_json(charter, groups))
    model = book.latest_model(own)
    status.update(
        running=False,
        pid=None,
        phase=_stopped(book, own),
        round=min(last.value.round, charter.rounds.rounds) if last else 0,
        waiting_for="" if own in book.closed else "the node does not run: swarm-node run",
        model_digest=model[1].hex() if model else None,
        bytes_sent=None,
        bytes_received=None,
        network=None,
        peak_memory_mb=None,
    )
    return status


def _stopped(book: RoundBook, own: int) -> str:
    """What a site is whose node does not run."""
    if own in book.left:
        return "left"
    return "done" if own in book.closed else "stopped"


def _payload_bytes(directory: Path) -> int:
    """Add up what lies there, beside a node that may be writing."""
    sizes = []
    for path in directory.iterdir() if directory.is_dir() else ():
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def _describe(
    name: str, charter: Charter, book: RoundBook, own: int, live: Mapping[int, Mapping[str, Any]]
) -> Status:
    agreed = book.latest_agreed()
    own_merge = book.latest_merge(own) if charter.aggregation.is_gossip else None
    newest_merge = own_merge[1] if own_merge else agreed.proposal if agreed else None
    weights = {i.author: i.weight_micro for i in newest_merge.inputs} if newest_merge else {}
    # One liar's far-off round must not make everybody else look idle.
    newest = max(book.last_offer_round(own), book.round_ahead(own))

    def member(index: int) -> Status:
        last_round = book.last_offer_round(index)
        offer = book.offers(last_round).get(index)
        return {
            "name": book.roster.member(index).name,
            "index": index,
            "self": index == own,
            "registered": True,
            "configured": index in book.opened,
            "forked": book.is_frozen(index),
            "left": index in book.left,
            "training": index not in book.closed and 0 <= newest - 1 <= last_round,
            "merged": index in weights,
            "reached": None,
            "connected": None,
            "last_seen_s": None,
            "corrupted": None,
            "round": last_round if last_round >= 0 else None,
            "samples": offer.samples if offer else None,
            "weight_micro": weights.get(index),
            **live.get(index, {}),
        }

    stopping = Stopping(book, charter.stopping, rounds=charter.rounds.rounds)
    released = stopping.released()
    return {
        "site": name,
        "federation": charter.federation,
        "charter_digest": charter.digest_hex,
        "rounds": charter.rounds.rounds,
        "rounds_agreed": len([r for r in book.agreed_rounds() if r > 0]),
        "averaging": charter.aggregation.averaging,
        "agreed_round": agreed.round if agreed else None,
        "stopped_round": stopping.standing().stopped,
        "released_round": released.round if released else None,
        "own_round": own_merge[0] if own_merge else None,
        "result_digest": newest_merge.result.hex() if newest_merge else None,
        "members": [member(m.index) for m in book.roster.active],
    }


def _metrics(values: tuple[MetricValue, ...]) -> Status:
    """Newest evaluation on the hospital's own validation patients, with 95 % intervals."""
    named = {
        MetricId(value.metric).name.lower(): {
            "value": value.micro / MICRO,
            "low": value.low_micro / MICRO,
            "high": value.high_micro / MICRO,
        }
        for value in values
    }
    return {"metrics": named, "auc": named["auc"]["value"] if "auc" in named else None}
