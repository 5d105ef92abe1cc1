"""What all members of one process ask alike, worked out once for all of them.

Room: scenarios. Law: nothing here is imported by a node, and nothing is assumed: each answer is worked
out for real, by the code that a hospital runs, the first time that it is asked for, and belongs to the
very bytes that were asked about. The auditor, who comes later, asks again. docs/simulator.md §3.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar

import ledger.keys
import node.intake
import node.journal
import node.witness
from ledger.record import SignedRecord
from ledger.roster import Roster

ANSWERS_MAX: Final = 300_000
"""Answers of one kind that are remembered at a time."""

T = TypeVar("T")

Question = Callable[..., Hashable]
"""Says of a call what its answer depends on."""


def _of_signature(signed_message: bytes, public_key: bytes) -> Hashable:
    return signed_message, public_key


def _of_record(signed: SignedRecord, *, roster: Roster) -> Hashable:
    return signed.record_bytes, signed.signature, roster.digest


def _of_checkpoint(data: bytes, *, roster: Roster, **how: Any) -> Hashable:
    return data, roster.digest, tuple(how.items())


QUESTIONS: Final[Sequence[tuple[Question, str, Sequence[Any]]]] = (
    (_of_signature, "opens", (ledger.keys,)),
    (_of_record, "open_record", (node.intake, node.journal)),
    (_of_checkpoint, "open_checkpoint", (node.witness,)),
)
"""(what the answer depends on, the function's name, the modules that ask it)"""


@contextmanager
def worked_out_once() -> Iterator[None]:
    """Let all members share the answers to three pure questions, for the length of a run.

    Does this key's signature verify? What does this record say, under this roster? What does this
    checkpoint say, under this roster? A refusal is not remembered.
    """
    with ExitStack() as stack:
        for question, name, modules in QUESTIONS:
            shared = _once(getattr(modules[0], name), question)  # a planted bug stays in it
            for module in modules:
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, shared)
        yield


def _once(function: Callable[..., T], question: Question) -> Callable[..., T]:
    """Return ``function`` with a memory."""
    known: dict[Hashable, T] = {}

    def ask(*what: Any, **how: Any) -> T:
        asked = question(*what, **how)
        if asked not in known:
            if len(known) >= ANSWERS_MAX:
                known.clear()
            known[asked] = function(*what, **how)
        return known[asked]

    return ask
