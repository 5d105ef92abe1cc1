"""What a node says of its ways to the others, and that the doctor understands all of it."""

import json

import pytest
from forwarding_swarm import forwarding_swarm
from network_swarm import running_swarm, until

from ledger.errors import ConfigError
from node.doctor_network import _told
from node.doctor_pairs import others_findings, own_findings
from node.findings import Level
from node.status_network import network_facts, ways

NAMES = {0: "Anna", 1: "Berta", 2: "Clara", 3: "Dora"}


async def test_each_way_has_its_word_and_the_doctor_reads_them_over_the_socket() -> None:
    async with forwarding_swarm("memory", 4, outbound_only={2, 3}) as members:
        await members[0].stop()
        network = members[2].network
        await until(lambda: 0 not in network.connected())  # Berta has told
        told = network_facts(network, {})
        assert ways(network, NAMES) == {
            0: "unreachable", 1: "direct", 2: "unreachable", 3: "via Berta",
        }  # fmt: skip
        assert told is not None
        carried = json.loads(json.dumps(told))  # as it travels
        names = NAMES
        facts = _told(carried, 2, names, {}, listens=False)
        lines = {one.what.split()[0].rstrip(":"): one for one in own_findings(facts)}
        assert lines["Berta"].what == "Berta: direct"
        assert lines["Dora"].what.startswith("Dora: via Berta, not directly")
        assert lines["Anna"].what == "Anna: not connected; nobody else reaches it"
        assert all(one.level is not Level.FAIL for one in others_findings(facts))


async def test_a_network_without_forwarding_has_no_such_facts() -> None:
    async with running_swarm("memory", 2) as members:
        assert network_facts(members[0].network, {}) is None
        assert ways(members[0].network, {0: "Anna", 1: "Berta"})[1] == "direct"


@pytest.mark.parametrize("told", [{}, {"sights": {"0": 99}}, {"sights": []}, {"sights": {"x": 1}}])
def test_the_answer_of_a_node_of_another_version_is_one_line(told: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="another version"):
        _told(told, 0, NAMES, {}, listens=True)
