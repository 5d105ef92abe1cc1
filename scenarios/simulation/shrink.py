"""The smallest plan that still fails: faults and liars are taken away while the same invariant breaks.

Room: scenarios. One at a time, latest first, again until none can go: plans are short, so that finds a
plan of which every line is needed.
"""

from collections.abc import Callable
from dataclasses import replace

from scenarios.simulation.faults import Addition, Fault, named_by
from scenarios.simulation.plan import Plan

Fails = Callable[[Plan], bool]


def shrink(plan: Plan, fails: Fails) -> Plan:
    """Return a plan from which nothing can be left out without ``fails`` becoming false."""
    while True:
        smaller = next((one for one in _smaller(plan) if fails(one)), None)
        if smaller is None:
            return plan
        plan = smaller


def _smaller(plan: Plan) -> list[Plan]:
    found = [
        replace(plan, faults=tuple(one for one in plan.faults if not _goes_with(one, fault)))
        for fault in reversed(plan.faults)
    ]
    for liar in plan.liars:
        others = tuple(one for one in plan.liars if one is not liar)
        found.append(replace(plan, liars=others))
        for attack in liar.attacks if len(liar.attacks) > 1 else ():
            milder = replace(liar, attacks=tuple(one for one in liar.attacks if one != attack))
            found.append(replace(plan, liars=(*others, milder)))
    if plan.stays_dead:
        found.append(replace(plan, stays_dead=()))
    if any(plan.skew_ms):
        found.append(replace(plan, skew_ms=(0,) * plan.sites))
    return found


def _goes_with(one: Fault, gone: Fault) -> bool:
    """Whether a fault makes no sense without another: what befalls a hospital that is never added."""
    if one is gone:
        return True
    return isinstance(gone, Addition) and gone.member in named_by(one)
