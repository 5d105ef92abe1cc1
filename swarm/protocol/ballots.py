"""The numbers of round zero's ballots: an attempt has two, votes and then confirmations. Spec: docs/wire.md §5.7."""


def vote_ballot(attempt: int) -> int:
    """Return the ballot in which an attempt's votes are cast."""
    return 2 * attempt


def confirmation_ballot(attempt: int) -> int:
    """Return the ballot in which what won an attempt's votes is confirmed."""
    return 2 * attempt + 1


def attempt_of(ballot: int) -> int:
    """Return the attempt that a ballot belongs to."""
    return ballot // 2


def is_confirmation(ballot: int) -> bool:
    """Tell whether a ballot is an attempt's second."""
    return ballot % 2 == 1
