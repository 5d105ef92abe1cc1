"""What the charter lets a hospital say about how many patients it has."""

from ledger.charter import PrivacyPolicy


def published_count(count: int, policy: PrivacyPolicy) -> int:
    """Return ``count``, or the lower bound of its power-of-two bucket where the charter says so."""
    if policy.sample_count == "exact" or count == 0:
        return count
    return 1 << (count.bit_length() - 1)
