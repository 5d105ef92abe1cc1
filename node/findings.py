"""What the doctor found: one line each, with what to change. Room: node."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``change`` is empty where there is nothing to change."""

    level: Level
    check: str
    """Which check: ``keys``, ``charter``, ``listen`` …"""
    what: str
    change: str = ""

    def line(self) -> str:
        """``FAIL  listen: port 4001 is in use — stop the other program``."""
        text = f"{self.level.value:<4}  {self.check}: {self.what}"
        return f"{text} — {self.change}" if self.change else text

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        level = self.level.value.lower()
        return {"level": level, "check": self.check, "what": self.what, "change": self.change}


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, what)


def warn(check: str, what: str, change: str = "") -> Finding:
    """The node would run."""
    return Finding(Level.WARN, check, what, change)


def fail(check: str, what: str, change: str = "") -> Finding:
    """The node would not run, or not as it should."""
    return Finding(Level.FAIL, check, what, change)
