"""A node knows where others dial it, or says nothing rather than something wrong."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from node.config import load_site
from node.networking import own_addresses

NAME = "/dns4/swarm.anna.example/tcp/4001"


class Listening:
    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    def listening(self) -> tuple[str, ...]:
        return self._addresses


@pytest.mark.parametrize(
    ("settings", "charter", "listening", "told"),
    [
        ("inbound = false", [NAME], [], ()),
        (f'addresses = ["{NAME}"]', [], ["/ip4/0.0.0.0/tcp/4001"], (NAME,)),
        ("", [NAME], ["/ip4/0.0.0.0/tcp/4001"], None),
        ("", [NAME], ["/ip6/::/tcp/4001"], None),
        ("", [NAME], ["/ip4/10.0.0.7/tcp/4001"], None),  # behind NAT
        ("", [NAME], ["/ip4/127.0.0.1/tcp/4001"], None),
        ("", ["/ip4/10.0.0.7/tcp/4001"], ["/ip4/10.0.0.7/tcp/4001"], None),
        ("", ["/ip4/10.0.0.7/tcp/4001"], ["/ip4/10.0.0.7/tcp/5"], ["/ip4/10.0.0.7/tcp/5"]),
        ("", ["/ip4/127.0.0.1/tcp/1"], ["/ip4/127.0.0.1/tcp/2"], ["/ip4/127.0.0.1/tcp/2"]),
        ("", [], ["/ip4/10.0.0.7/tcp/4001"], ["/ip4/10.0.0.7/tcp/4001"]),
        ("", [NAME], ["/ip4/1.1.1.1/tcp/5"], ["/ip4/1.1.1.1/tcp/5"]),
    ],
)
def test_where_others_dial_this_site(
    tmp_path: Path,
    settings: str,
    charter: Sequence[str],
    listening: Sequence[str],
    told: Sequence[str] | None,
) -> None:
    text = f'name = "Anna"\n[data]\nsource = "p.csv"\n[network]\n{settings}\n'
    (tmp_path / "site.toml").write_text(text)
    find = own_addresses(load_site(tmp_path), charter, Listening(*listening))  # type: ignore[arg-type]
    assert find() == told
