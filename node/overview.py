"""How everybody takes part, as this node's ledger says it: kept up to date, and said in words.

Room: node. The same function as an auditor's (ledger/insight.py) over the same records gives the same
integers. It reads the store anew, beside everything else, and no more often than it can afford.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, final

import trio

from ledger.charter import Charter
from ledger.errors import VerificationError
from ledger.insight import Insight, look
from ledger.record import Record, Verified, open_record
from ledger.roster import Roster
from ledger.signal_report import alert_json, sentence
from ledger.signals import Alert
from ledger.store import Store
from node.world import World

REST_TIMES: Final = 20
"""A look that took t seconds is followed by 20 t of rest: at most a twentieth of a core."""

REST_MIN_S: Final = 1.0

RECORDS_SHOWN_MAX: Final = 8
"""Records named for each doubt in the log and in the status, whose answer has a limit."""


def insight_of(records: Iterable[Verified[Record]], roster: Roster, charter: Charter) -> Insight:
    """Return what a node's records say. What an auditor would refuse is passed over."""
    return look(list(records), roster, charter, strict=False)


def stored_insight(path: Path, roster: Roster, charter: Charter) -> Insight:
    """Read a store, beside a node that may be writing it. Raises StoreError, VerificationError."""
    with Store.open(path, read_only=True) as store:
        records = [open_record(signed, roster=roster) for signed in store.records()]
    return insight_of(records, roster, charter)


@final
class Overview:
    """One node's newest look at everybody."""

    def __init__(
        self,
        world: World,
        charter: Charter,
        roster: Roster,
        path: Path,
        *,
        looked: Callable[[Insight], None],
    ) -> None:
        """Begin without one. path: the node's store. looked: told of every new look."""
        self._looked = looked
        self._world = world
        self._charter = charter
        self._roster = roster
        self._path = path
        self._news = trio.Event()
        self._told: set[tuple[int, str, int]] = set()
        """(member, signal, first round) of doubts that the log has told"""
        self._open: set[tuple[int, str, int]] = set()
        self.insight: Insight | None = None
        self.seconds = 0.0
        """How long the last look took."""

    def changed(self) -> None:
        """Something was said about somebody: look again when there is time."""
        self._news.set()

    async def run(self) -> None:
        """Look again whenever something has changed, until cancelled."""
        compute = self._world.beside
        if compute is None or self._charter.reputation.mode == "off":
            return
        while True:
            await self._news.wait()
            self._news = trio.Event()
            started_s = trio.current_time()
            try:
                self.insight = await compute.run(
                    stored_insight, self._path, self._roster, self._charter
                )
            except VerificationError as error:
                self._world.log.warning("reputation_unknown", why=str(error))
            else:
                self._looked(self.insight)
                self._tell(self.insight)
            self.seconds = trio.current_time() - started_s
            await trio.sleep(max(REST_TIMES * self.seconds, REST_MIN_S))

    def _tell(self, insight: Insight) -> None:
        """Say in the log, in words, what is new."""
        newest = max((one.round for one in insight.sketches), default=0)
        doubted = {
            (one.member, alert.signal, alert.round): (one.member, alert)
            for one in insight.signals
            for alert in one.alerts
        }
        for key, (member, alert) in doubted.items():
            if key not in self._told:
                self._told.add(key)
                self._open.add(key)
                self._log(self._world.log.warning, "member_doubted", member, alert)
            elif key in self._open and alert.until < newest - 1:
                self._open.discard(key)
                self._log(self._world.log.info, "doubt_faded", member, alert)

    def _log(self, write: Callable[..., object], event: str, member: int, alert: Alert) -> None:
        name = self._roster.member(member).name
        write(
            event,
            member=name,
            why=sentence(name, alert),
            would_clear_it=alert.clears,
            records=[one.hex()[:16] for one in alert.evidence[:RECORDS_SHOWN_MAX]],
        )


def overview_facts(insight: Insight | None) -> dict[str, Any] | None:
    """Return reputation and doubts for `status --json`; None before the first look."""
    if insight is None:
        return None
    state = insight.reputation.state
    doubts = {
        one.member: [alert_json(alert, records_max=RECORDS_SHOWN_MAX) for alert in one.alerts]
        for one in insight.signals
    }
    return {
        "round": state.round,
        "digest": state.digest().hex(),
        "members": [
            {
                "member": one.member,
                "reputation_micro": one.value_micro,
                "doubts": doubts.get(one.member, []),
            }
            for one in state.standings
        ],
    }
