"""docs/wire.md says what the code does: its moves and its limits are compared here.

`python -m tests.swarm.protocol.test_wire_document` writes the moves anew after a change of the table.
"""

import re
from pathlib import Path

from ledger.canonical import ITEMS_MAX
from node import carrier, pull, reaching, slots, witness
from node.address_book import TAKE_PAUSE_S
from node.address_record import ADDRESSES_MAX, RECORD_BYTES_MAX
from node.exchange import REQUEST_TIMEOUT_S
from node.forwarding import FORWARDED_BYTES_MAX
from node.intake import PENDING_MAX
from node.limits import REPLAY_WINDOW
from node.network import GOSSIP_BYTES_MAX, GOSSIP_QUEUE_MAX, REQUEST_BYTES_MAX, SERVING_MAX
from node.round_share import (
    ROUND_BYTES,
    ROUND_BYTES_MEMBER,
    ROUND_RECORDS,
    ROUND_RECORDS_MEMBER,
)
from swarm.protocol import deadline, patience
from swarm.protocol.fetch import STEAL_AFTER_S, WINDOW_MAX
from swarm.protocol.messages import HEADS_MAX, MESSAGE_BYTES_MAX, RECORDS_BYTES_MAX
from swarm.protocol.payload import CHUNK_BYTES
from swarm.protocol.phases import TRANSITIONS, Event, Phase
from swarm.protocol.stalls import CHUNK_GRACES, MANIFEST_GRACES
from swarm.protocol.sync import SYNC_FANOUT

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "wire.md"
MARKS = ("<!-- moves -->\n", "<!-- /moves -->")

MEANING = {
    Event.STARTED: "enough have signed",
    Event.CONTRIBUTED: "the own CONTRIBUTION is on the ledger",
    Event.CLOSED: "enough payloads are held",
    Event.VOTED: "the own AGGREGATION is on the ledger",
    Event.SPLIT: "round 0, and its votes are split",
    Event.SETTLED: "agreed as voted, or patience is over",
    Event.OVERTAKEN: "a round is agreed that this node did not vote for like that",
    Event.OUTRUN: "others are rounds ahead, or nothing that was offered can be merged",
    Event.HELD: "the agreed payloads are held, or withheld from this node",
    Event.EVALUATED: "the own METRICS are on the ledger",
    Event.FINISHED: "that was the last round",
    Event.LEFT: "nobody needs this node any more",
}

LIMITS = {
    "gossip message, bytes": GOSSIP_BYTES_MAX,
    "request or reply body, bytes": REQUEST_BYTES_MAX,
    "sync message, bytes": MESSAGE_BYTES_MAX,
    "records in one sync reply, bytes": RECORDS_BYTES_MAX,
    "records in one sync reply": ITEMS_MAX,
    "heads in one hello": HEADS_MAX,
    "chunk, bytes": CHUNK_BYTES,
    "records that wait for others": PENDING_MAX,
    "records of one log and round": ROUND_RECORDS,
    "and for each member": ROUND_RECORDS_MEMBER,
    "bytes of one log and round": ROUND_BYTES,
    "bytes for each member": ROUND_BYTES_MEMBER,
    "requests of one peer served at once": SERVING_MAX,
    "gossip messages that wait": GOSSIP_QUEUE_MAX,
    "seconds for one reply": int(REQUEST_TIMEOUT_S),
    "peers compared with at a time": SYNC_FANOUT,
    "seconds for one chunk": int(pull.CHUNK_TIMEOUT_S),
    "chunks under way from one source": WINDOW_MAX,
    "chunks under way to a node": slots.SLOTS_MAX,
    "sources of one payload at once": pull.SOURCES_MAX,
    "seconds until a chunk may be asked of a second source": int(STEAL_AFTER_S),
    "graces of patience": patience.PATIENCE_GRACES,
    "graces until a payload without manifest counts as not served": MANIFEST_GRACES,
    "graces until one that does not move counts so": CHUNK_GRACES,
    "rounds that a pace is learned from": deadline.ROUNDS_REMEMBERED,
    "rounds that patience is learned from": patience.ROUNDS_REMEMBERED,
    "times that a payload on its way is waited for longer": patience.DOWNLOADS_STRETCH_MAX,
    "seconds for one answer about checkpoints": int(witness.REQUEST_TIMEOUT_S),
    "seconds that an author asks for cosignatures": int(witness.GATHER_S),
    "seconds that a node stays for the last checkpoints": int(witness.SETTLE_S),
    "seconds between two questions who reaches whom": int(reaching.INTERVAL_S),
    "body that is carried, bytes": FORWARDED_BYTES_MAX,
    "boxes from one member to another under way": carrier.PAIR_MAX,
    "boxes to one member under way": carrier.TARGET_MAX,
    "seconds that a carrier waits for a target": int(carrier.CARRY_S),
    "sequences that may arrive out of order": REPLAY_WINDOW,
    "addresses in a record": ADDRESSES_MAX,
    "address record, bytes": RECORD_BYTES_MAX,
    "seconds between two of one author that are taken": int(TAKE_PAUSE_S),
}


def moves() -> str:
    """The table and the drawing of TRANSITIONS, as Markdown."""
    rows = [
        f"| {source} {source.name} | {event.name} | {target} {target.name} | {MEANING[event]} |"
        for (source, event), target in sorted(TRANSITIONS.items())
    ]
    arrows = [
        f"    {source.name} --> {target.name}: {event.name.lower()}"
        for (source, event), target in sorted(TRANSITIONS.items())
    ]
    drawing = ["stateDiagram-v2", f"    [*] --> {Phase.JOIN.name}", *arrows]
    drawing.append(f"    {Phase.DONE.name} --> [*]")
    head = "| phase | event | next | when |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n\n```mermaid\n" + "\n".join(drawing) + "\n```\n"


def parts(text: str) -> tuple[str, str, str]:
    before, rest = text.split(MARKS[0])
    written, after = rest.split(MARKS[1])
    return before, written, after


def test_the_documents_moves_are_the_machines() -> None:
    _, written, _ = parts(DOCUMENT.read_text())
    assert written == moves(), "run python -m tests.swarm.protocol.test_wire_document"


def test_the_documents_limits_are_the_codes() -> None:
    section = DOCUMENT.read_text().split("## 6. Limits")[1].split("## 7.")[0]
    rows = re.findall(r"^\| (.+?) \| (\d+) \|$", section, flags=re.MULTILINE)
    assert {name: int(limit) for name, limit in rows} == LIMITS


def test_every_place_that_the_code_points_to_exists() -> None:
    text = DOCUMENT.read_text()
    for folder in ("swarm", "node"):
        for path in (ROOT / folder).rglob("*.py"):
            for section in re.findall(r"docs/wire\.md §([\d.]*\d)", path.read_text()):
                assert re.search(rf"^#+ {re.escape(section)}[. ]", text, flags=re.MULTILINE), (
                    path,
                    section,
                )


if __name__ == "__main__":
    start, _, end = parts(DOCUMENT.read_text())
    DOCUMENT.write_text(start + MARKS[0] + moves() + MARKS[1] + end)
