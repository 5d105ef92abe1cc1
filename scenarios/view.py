"""What one node's status interface says, as this room needs it.

Room: scenarios. Law: a status that lacks a field is shown as unknown, never as an error: a site
operator would see the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """One hospital at one moment. peers: members it is connected to, of ``peers_max`` others."""

    name: str
    phase: str = "starting"
    round: int = 0
    rounds: int = 0
    agreed_round: int = 0
    rounds_agreed: int = 0
    peers: int = 0
    peers_max: int = 0
    auc: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    memory_mb: float = 0.0
    waiting_for: str = ""
    running: bool = False

    def left(self) -> "NodeView":
        """The same node after it has ended by itself."""
        return replace(self, phase="left", peers=0, waiting_for="", running=False)

    @classmethod
    def of(cls, name: str, status: Mapping[str, Any]) -> "NodeView":
        """Read the object that `swarm-node status --json` prints."""
        others = [member for member in _list(status, "members") if not member.get("self")]
        waiting = status.get("waiting_for") or ""
        return cls(
            name=name,
            phase=str(status.get("phase") or "starting"),
            round=_whole(status, "round"),
            rounds=_whole(status, "rounds"),
            agreed_round=_whole(status, "agreed_round"),
            rounds_agreed=_whole(status, "rounds_agreed"),
            peers=sum(bool(member.get("connected")) for member in others),
            peers_max=len(others),
            auc=status["auc"] if isinstance(status.get("auc"), float | int) else None,
            bytes_sent=_whole(status, "bytes_sent"),
            bytes_received=_whole(status, "bytes_received"),
            memory_mb=float(status.get("peak_memory_mb") or 0.0),
            waiting_for=waiting if isinstance(waiting, str) else ", ".join(map(str, waiting)),
            running=bool(status.get("running")),
        )


def _whole(status: Mapping[str, Any], key: str) -> int:
    value = status.get(key)
    return value if type(value) is int else 0


def _list(status: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = status.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
