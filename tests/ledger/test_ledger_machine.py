"""Whatever happens to a federation, stores, chain and audit say what the specification says.

`LEDGER_MACHINE_EXAMPLES=500` looks longer, at random; a failure then prints how to repeat it.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from ledger_machine import Ledgers

from ledger import chain, finality

EXAMPLES = int(os.environ.get("LEDGER_MACHINE_EXAMPLES", "0"))
LOOK = settings(
    max_examples=EXAMPLES or 40,
    stateful_step_count=40,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

# To be found, a planted mistake needs no shrinking.
GLANCE = settings(LOOK, phases=[Phase.generate])


def test_stores_chain_and_audit_say_what_the_specification_says() -> None:
    run_state_machine_as_test(Ledgers, settings=LOOK)  # type: ignore[no-untyped-call]


def test_the_machine_finds_a_store_that_lets_clocks_go_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A planted mistake: step 10 is left out."""
    monkeypatch.setattr(chain, "check_monotone", lambda *_: None)
    with pytest.raises(AssertionError, match="the code says stored, the specification E_"):
        run_state_machine_as_test(Ledgers, settings=GLANCE)  # type: ignore[no-untyped-call]


def test_the_machine_finds_a_quorum_that_is_one_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted mistake: finality is declared one member too early."""
    quorum = finality.quorum
    monkeypatch.setattr(finality, "quorum", lambda members: quorum(members) - 1)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Ledgers, settings=GLANCE)  # type: ignore[no-untyped-call]
