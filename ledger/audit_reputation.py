"""Step 19: reputation replayed from the accepted records. Room: ledger. Spec: docs/reputation.md §7.

Unlike the steps before it, this one holds all records at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .audit import Audit
from .errors import ConfigError, VerificationError
from .insight import Insight, look
from .reading import read_all
from .report import Finding
from .reputation import check_reputation, replay
from .reputation_types import Reputation
from .roster import Roster

CLAIM_BYTES_MAX: Final = 1 << 28


def replay_accepted(audit: Audit, roster: Roster) -> Reputation:
    """Return the reputation that the accepted records give. Raises VerificationError."""
    records = list(read_all(audit.readable(), roster, audit.counts()))
    return replay(records, roster, evaluators_max=audit.charter.reputation.evaluators_max)


def look_at_accepted(audit: Audit, roster: Roster) -> Insight:
    """Return reputation and signals as the accepted records give them. Raises VerificationError."""
    records = list(read_all(audit.readable(), roster, audit.counts()))
    return look(records, roster, audit.charter)


def step_19_reputation(audit: Audit, roster: Roster, claimed: Mapping[int, int]) -> list[Finding]:
    """The claimed values are the replayed ones. E_REPUTATION."""
    try:
        check_reputation(claimed, replay_accepted(audit, roster).state)
    except VerificationError as error:
        return [Finding(19, error)]
    return []


def read_claim(path: Path) -> dict[int, int]:
    """Read member → reputation out of what ``swarm-audit reputation --json`` wrote.

    Raises ConfigError if it is something else.
    """
    with path.open("rb") as file:
        data = file.read(CLAIM_BYTES_MAX + 1)
    try:
        if len(data) > CLAIM_BYTES_MAX:
            raise ValueError("too long")  # noqa: TRY301 - one message for whatever is wrong
        rows: list[Any] = json.loads(data)["members"]
        claimed = {row["member"]: row["reputation_micro"] for row in rows}
        if len(claimed) != len(rows) or any(
            type(number) is not int for pair in claimed.items() for number in pair
        ):
            raise ValueError("not integers, each member once")  # noqa: TRY301
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(
            f"{path}: not a list of reputations as swarm-audit reputation --json writes it"
        ) from None
    return claimed
