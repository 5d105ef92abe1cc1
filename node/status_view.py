"""A site's status for the eye: one table, one line of what it waits for.

Room: node. Law: shows what `node.status` says and adds nothing.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

Status = Mapping[str, Any]

WORDS: Final = ("registered", "configured", "training", "merged")
NONE: Final = "–"
_UNBOUNDED: Final = Console(width=10_000)
PLAIN_WIDTH: Final = 132
"""Columns where nobody looks at a terminal: no line is broken for want of room."""


def show(status: Status) -> None:
    """Print one status."""
    console = _console()
    console.print(render(status, width=console.width))


def show_forever(
    read: Callable[[], Status],
    *,
    as_json: bool,
    interval_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the status until interrupted: in place on a terminal, else one line per change."""
    console = _console()
    if as_json or not console.is_terminal:
        last = None
        while True:
            status = read()
            line = json.dumps(status, ensure_ascii=False) if as_json else headline(status)
            if line != last:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            last = line
            sleep(interval_s)
    with Live(render(read(), width=console.width), console=console, auto_refresh=False) as live:
        while True:
            sleep(interval_s)
            live.update(render(read(), width=console.width), refresh=True)


def headline(status: Status) -> str:
    """Say in one line where the site stands."""
    parts = [
        f"{status['site']}: {str(status['phase']).replace('_', ' ')}",
        f"round {status['round']} of {status['rounds']}{_stopped(status)}",
        "averages with neighbours" if _is_gossip(status) else f"{status['rounds_agreed']} agreed",
    ]
    if status.get("auc") is not None:
        parts.append(f"AUC {status['auc']:.3f}")
    if status.get("waiting_for"):
        parts.append(f"waits: {status['waiting_for']}")
    return ", ".join(parts)


def _stopped(status: Status) -> str:
    """Say that training has ended early, and with which model."""
    if status.get("stopped_round") is None:
        return ""
    return f" (stopped: no better loss, best after round {status['released_round']})"


def render(status: Status, *, width: int = PLAIN_WIDTH) -> Group:
    """Lay a status out for so many columns: headline, members, traffic."""
    running = f"running, process {status['pid']}" if status["running"] else "not running"
    heading = Text(f"{status['site']} in {status['federation']} ({running})", style="bold")
    lines = [heading, Text(headline(status))]
    if status.get("result_digest"):
        lines.append(Text(f"{_whose(status)}: {status['result_digest']}"))
    lines += [
        Text(
            f"{member['name']} has signed two histories: nothing more of it is taken until the "
            "federation rotates its key or removes it (swarm-node roster propose)"
        )
        for member in status["members"]
        if member.get("forked")
    ]
    lines += [
        Text(f"{member['name']} has left for good: nobody waits for it any more")
        for member in status["members"]
        if member.get("left")
    ]
    lines += [
        Text(
            f"{member['name']} has sent other bytes than a digest names, {member['corrupted']} times "
            "(fetch_refused in the log): its memory, or a lie"
        )
        for member in status["members"]
        if member.get("corrupted")
    ]
    footer = (
        f"sent {size(status['bytes_sent'])}, received {size(status['bytes_received'])}, "
        f"memory {_number(status['peak_memory_mb'], 'MB')}"
    )
    table = _table(status)
    # A table that does not fit would cut names and headings off.
    fits = _UNBOUNDED.measure(table).maximum <= width
    members = table if fits else _lines(status)
    transfers = [Text(_transfer(one)) for one in status.get("transfers", ())]
    kept = [Text(_kept(status))] if status.get("payload_bytes") is not None else []
    ending = [*transfers, *kept, *([Text(footer)] if status["running"] else [])]
    return Group(*lines, Text(), members, Text(), *ending)


def _is_gossip(status: Status) -> bool:
    return status.get("averaging") == "gossip"


def _whose(status: Status) -> str:
    """Say which model the digest names: one that a quorum agreed on, or this site's own."""
    if _is_gossip(status) and status.get("own_round") is not None:
        return f"this site's own model of round {status['own_round']} (provisional: nobody agrees)"
    return f"agreed model of round {status['agreed_round']}"


def _transfer(one: Mapping[str, Any]) -> str:
    """Say how far a payload has come."""
    whose = f"update of {one['member']}" if one["member"] else f"model {one['digest'][:16]}"
    count = one["bytes_count"]
    done = f"{size(one['bytes_held'])} of {size(count)}" if count is not None else "asked for"
    sources = "source" if one["sources"] == 1 else "sources"
    return f"fetching the {whose}: {done}, {one['mb_s']:.1f} MB/s, {one['sources']} {sources}"


def _kept(status: Status) -> str:
    return f"models on disk {size(status['payload_bytes'])} of {size(status['payload_bytes_max'])}"


def _lines(status: Status) -> Text:
    lines = []
    for member in status["members"]:
        index, name, *_, seen, round_, patients, weight = _row(member)
        words = [word if member[word] else f"not {word}" for word in WORDS]
        if member.get("reached") is not None:
            words.append(member["reached"])
        lines.append(f"{index}  {name}: {', '.join(words)}")
        lines.append(f"   seen {seen}, round {round_}, patients {patients}, weight {weight}")
    return Text("\n".join(lines))


def _table(status: Status) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "member", *WORDS, "reached", "seen", "round", "patients", "weight"):
        right = column in ("seen", "round", "patients", "weight")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for member in status["members"]:
        table.add_row(*_row(member))
    return table


def size(bytes_count: int | None) -> str:
    """Spell a number of bytes: ``1.2 MB``."""
    if bytes_count is None:
        return NONE
    amount = float(bytes_count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def ago(seconds: float | None) -> str:
    """Spell an age: ``3 s``, ``5 min``, ``2 h``."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _row(member: Status) -> list[str]:
    own = bool(member["self"])
    weight = member["weight_micro"]
    return [
        str(member["index"]),
        str(member["name"]) + (" (this site)" if own else ""),
        *(_yes(member[word]) for word in WORDS),
        member.get("reached") or NONE,
        NONE if own else ago(member["last_seen_s"]),
        _number(member["round"]),
        _number(member["samples"]),
        NONE if weight is None else f"{weight / 10_000:.1f} %",
    ]


def _yes(value: bool | None) -> str:  # noqa: FBT001 - three answers
    return NONE if value is None else "yes" if value else "no"


def _number(value: float | None, unit: str = "") -> str:
    return NONE if value is None else f"{value:,}{unit and ' ' + unit}"


def _console() -> Console:
    """Write to what stdout is now; names and digests are text, not markup."""
    terminal = sys.stdout.isatty()
    return Console(markup=False, highlight=False, width=None if terminal else PLAIN_WIDTH)
