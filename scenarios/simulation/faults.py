"""Everything that a plan can do to a swarm, as values: printable, comparable, one line each.

Room: scenarios. Knows nothing of how a fault is carried out (mischief.py, world.py) or checked.
"""

from dataclasses import dataclass

from node.network_memory import Conditions


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Something that happens so long after the first honest member has begun a round."""

    at_s: float
    from_round: int | None = None
    """None: after the start of the run."""

    @property
    def when(self) -> str:
        """Say it, in a column of ten."""
        start = "" if self.from_round is None else f"r{self.from_round} + "
        return f"{start}{self.at_s:.1f} s".rjust(10)


@dataclass(frozen=True, kw_only=True)
class Kill(Timed):
    """A process dies (``power``: the whole machine) at a moment, and comes back."""

    member: int
    down_s: float
    power: bool

    def __str__(self) -> str:
        what = "loses power" if self.power else "is killed"
        return f"{self.when}  member {self.member} {what}, back after {self.down_s:.1f} s"


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashAtStep:
    """A process or machine dies at one of its own steps: a flush, a commit, a message, a wait."""

    step: int
    member: int
    down_s: float
    power: bool

    def __str__(self) -> str:
        what = "loses power" if self.power else "is killed"
        return f"step {self.step:5d}  member {self.member} {what} there, back after {self.down_s:.1f} s"


@dataclass(frozen=True, kw_only=True)
class BadDisk(Timed):
    """Every write fails: the disk is full, or (``broken``) gives I/O errors, until it is mended."""

    member: int
    for_s: float
    broken: bool

    def __str__(self) -> str:
        what = "has a broken disk" if self.broken else "has a full disk"
        return f"{self.when}  member {self.member} {what} for {self.for_s:.1f} s"


@dataclass(frozen=True, kw_only=True)
class Cut(Timed):
    """Nothing passes from ``sources`` to ``targets``; both ways if ``symmetric``."""

    for_s: float
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    symmetric: bool

    def __str__(self) -> str:
        arrow = "<->" if self.symmetric else "->"
        ends = f"{_list(self.sources)} {arrow} {_list(self.targets)}"
        return f"{self.when}  nothing passes {ends} for {self.for_s:.1f} s"


@dataclass(frozen=True, kw_only=True)
class SlowLink(Timed):
    """One direction between two members becomes slow and narrow."""

    for_s: float
    source: int
    target: int
    delay_s: float
    bandwidth_bytes_s: float

    def __str__(self) -> str:
        return (
            f"{self.when}  link {self.source} -> {self.target} takes {self.delay_s:.1f} s and "
            f"{self.bandwidth_bytes_s:.0f} bytes/s for {self.for_s:.1f} s"
        )


@dataclass(frozen=True, kw_only=True)
class Weather(Timed):
    """The whole network loses, delays, reorders and duplicates."""

    for_s: float
    conditions: Conditions

    def __str__(self) -> str:
        one = self.conditions
        return (
            f"{self.when}  network loses {one.loss:.0%}, delays {one.delay_s:.2f} s "
            f"+ {one.jitter_s:.2f} s, doubles {one.duplicate:.0%} for {self.for_s:.1f} s"
        )


@dataclass(frozen=True, kw_only=True)
class ClockJump(Timed):
    """A member's wall clock jumps; its monotonic clock does not."""

    member: int
    by_ms: int

    def __str__(self) -> str:
        return f"{self.when}  clock of member {self.member} jumps by {self.by_ms} ms"


@dataclass(frozen=True, kw_only=True)
class Stall(Timed):
    """A member's computing takes ``cost_s`` a piece, as on a machine that swaps."""

    for_s: float
    member: int
    cost_s: float

    def __str__(self) -> str:
        return (
            f"{self.when}  member {self.member} needs {self.cost_s:.1f} s for everything, "
            f"for {self.for_s:.1f} s"
        )


@dataclass(frozen=True, kw_only=True)
class Rotation(Timed):
    """A site is stopped, a quorum of admins signs its next ledger key, and it comes back.

    A liar goes on with its old key: the others cut its log where they have it.
    """

    member: int
    down_s: float

    def __str__(self) -> str:
        return (
            f"{self.when}  member {self.member} is rotated, back after {self.down_s:.1f} s "
            "with its next key"
        )


@dataclass(frozen=True, kw_only=True)
class Removal(Timed):
    """A quorum of admins removes a member, whose log the others cut where they have it; a liar goes on."""

    member: int

    def __str__(self) -> str:
        return f"{self.when}  member {self.member} is removed"


@dataclass(frozen=True, kw_only=True)
class Addition(Timed):
    """A quorum of admins adds a hospital, which starts with their update and an empty ledger.

    Whoever else runs then finds the update in its inbox.
    """

    member: int

    def __str__(self) -> str:
        return f"{self.when}  member {self.member} is added"


@dataclass(frozen=True, kw_only=True)
class Leaving(Timed):
    """A site is stopped, and started once more to say goodbye for good (`swarm-node leave`)."""

    member: int
    down_s: float

    def __str__(self) -> str:
        return f"{self.when}  member {self.member} stops, and leaves for good {self.down_s:.1f} s later"


Fault = (
    Kill | CrashAtStep | BadDisk | Cut | SlowLink | Weather | ClockJump | Stall
    | Rotation | Removal | Addition | Leaving
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Liar:
    """A Byzantine member and what it does, before and after healing."""

    member: int
    attacks: tuple[str, ...]

    def __str__(self) -> str:
        return f"    always  member {self.member} lies: {', '.join(self.attacks)}"


def named_by(fault: Fault) -> frozenset[int]:
    """Members that a fault is about."""
    match fault:
        case Cut():
            return frozenset(fault.sources + fault.targets)
        case SlowLink():
            return frozenset((fault.source, fault.target))
        case Weather():
            return frozenset()
        case _:
            return frozenset((fault.member,))


def _list(members: tuple[int, ...]) -> str:
    return "{" + ", ".join(map(str, members)) + "}"
