"""Two cores, two workers: one swarm of real nodes at a time, and what takes minutes begins first."""

import pytest

LONGEST = ("test_simulate_seeds", "test_simulate_plants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("processes"):
            item.add_marker(pytest.mark.xdist_group("processes"))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    if item.get_closest_marker("processes"):
        return 0
    return 1 if any(name in item.nodeid for name in LONGEST) else 2
