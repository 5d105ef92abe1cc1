"""The run while it runs: a table that redraws in a terminal, plain lines anywhere else.

Room: scenarios. Law: shows only what the sites' status interfaces say.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from scenarios.view import NodeView

REDRAWS_PER_S: Final = 4
BAR_WIDTH: Final = 30
WIDE: Final = 110  # columns from which the table also says what each hospital waits for
QUIET_S: Final = 10.0  # plain lines: say something at least this often


class Progress(Protocol):
    """Takes every poll of the sites and shows it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def note(self, text: str) -> None:
        """One line about what the scenario itself does."""

    def update(self, views: Sequence[NodeView], *, elapsed_s: float) -> None:
        """The sites as of now, in roster order."""


def choose_progress(console: Console) -> Progress:
    """A table where someone watches, lines where a file or a CI job does."""
    return LiveTable(console) if console.is_terminal else PlainLines(console)


class LiveTable:
    """One row per hospital, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(
            console=console, refresh_per_second=REDRAWS_PER_S, transient=True, auto_refresh=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Print above the table."""
        self._console.print(text, highlight=False, markup=False)

    def update(self, views: Sequence[NodeView], *, elapsed_s: float) -> None:
        """Redraw."""
        width = self._console.width
        self._live.update(progress_view(views, elapsed_s=elapsed_s, width=width), refresh=True)


class PlainLines:
    """A line when a round is agreed or a hospital changes between waiting and working."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[object, ...] = ()
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to put back."""

    def note(self, text: str) -> None:
        """Print as it is."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, views: Sequence[NodeView], *, elapsed_s: float) -> None:
        """Print if something a reader waits for has changed, or after a while of silence."""
        agreed = max((view.agreed_round for view in views), default=0)
        peers = sum(view.peers for view in views) if agreed == 0 else -1
        state = (agreed, peers, sum(view.running for view in views))
        if state == self._shown and elapsed_s - self._shown_s < QUIET_S:
            return
        self._shown, self._shown_s = state, elapsed_s
        self.note(f"{elapsed_s:6.1f} s  {plain_line(views)}")


def plain_line(views: Sequence[NodeView]) -> str:
    """The whole swarm in one line: agreed round, then each hospital's phase, peers or AUC."""
    agreed = max((view.agreed_round for view in views), default=0)
    rounds = max((view.rounds for view in views), default=0)
    sites = [
        f"{view.name} {f'AUC {view.auc:.3f}' if view.auc is not None else f'{view.phase}, {view.peers} peers'}"
        for view in views
    ]
    return f"agreed {agreed:>2}/{rounds or '?'}  " + "  ".join(sites)


def progress_view(views: Sequence[NodeView], *, elapsed_s: float, width: int) -> Group:
    """Build the live view: the swarm's progress in one line, then a row per hospital."""
    agreed = max((view.agreed_round for view in views), default=0)
    rounds = max((view.rounds for view in views), default=0)
    head = Table.grid(padding=(0, 2))
    head.add_row(
        f"agreed {agreed} of {rounds or '?'} rounds",
        ProgressBar(total=max(rounds, 1), completed=agreed, width=BAR_WIDTH),
        f"{elapsed_s:.0f} s",
    )
    return Group(head, hospital_table(views, with_reason=width >= WIDE))


def hospital_table(views: Sequence[NodeView], *, with_reason: bool) -> Table:
    """One row per hospital, 80 columns wide at most without the reason why it waits."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("hospital", no_wrap=True, max_width=20)
    table.add_column("phase", no_wrap=True, min_width=9)
    for name in ("round", "peers", "AUC", "sent", "received"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    if with_reason:
        table.add_column("waits for", overflow="ellipsis", no_wrap=True, style="dim")
    for view in views:
        cells = [
            view.name,
            view.phase,
            f"{view.round}/{view.rounds}" if view.rounds else "-",
            f"{view.peers}/{view.peers_max}" if view.peers_max else "-",
            "-" if view.auc is None else f"{view.auc:.3f}",
            bytes_text(view.bytes_sent),
            bytes_text(view.bytes_received),
        ]
        table.add_row(*cells, *([view.waiting_for] if with_reason else []))
    return table


def bytes_text(count: int) -> str:
    """1234567 → "1.2 MB" (decimal units)."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 99.5 else f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"
