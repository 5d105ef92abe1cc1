"""What doubts say to humans, and what would clear them. Room: ledger. Spec: docs/free-riders.md §4."""

from __future__ import annotations

from typing import Final

_TEXT: Final = {
    "near": "its updates are nearly those that others had published before, far nearer than others' are",
    "own": "what sets its updates apart changes from round to round, as noise does: no patients of its own show",
    "rigid": "its updates repeat themselves far more than others', as from far fewer records than it claims",
    "large": "its updates are far larger than others', as from few records, wrong labels or units",
    "small": "its updates are far smaller than others', as from a step instead of the charter's",
    "joint": "direction, size and use to others' patients are together unlike everybody else's",
    "base": "its update is the very model that it was given: it did not train",
    "copy": "its update is, to the bit, another member's that it provably had",
    "unrevealed": "it committed to scores and did not open them, more than twice",
}

_CLEARS: Final = {
    "near": "updates of its own (the doubt fades by an eighth a round); training again, watched, to the same digests",
    "own": "updates that differ from the others' as its earlier ones did; ask whether its data changed every round",
    "rigid": "the records that it really trains on; batches as large as all that it has",
    "large": "units and labels at its site, looked at by its data manager",
    "small": "the steps that it really takes; data that the model already explains completely",
    "joint": "any of them as the others' are; a rare population that its hospital can explain",
    "base": "nothing, the record shows it; once may be an empty data folder, again and again is intent",
    "copy": "nothing, the records show it",
    "unrevealed": "nothing takes it back; a broken disk between commit and reveal explains one, not three",
}


def text_of(test: str) -> str:
    """What the doubt says, as the end of the sentence `Member 7: …`."""
    return _TEXT[test]


def clears_of(test: str) -> str:
    """What would clear it."""
    return _CLEARS[test]
