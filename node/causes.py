"""Nurseries wrap whatever ends them in groups; an operator needs the one error inside."""

import trio

from ledger.errors import SwarmError


def cause_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what stopped the tasks: our own bug before the operator's error, whose echo others are."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending[:0] = error.exceptions
        elif not isinstance(error, trio.Cancelled):
            leaves.append(error)
    bugs = [error for error in leaves if not isinstance(error, SwarmError)]
    return (bugs or leaves or [group])[0]
