"""The pre-shared key: who has it meets, who has another or none is told so, at both ends."""

import secrets
from pathlib import Path

import nacl.bindings
import pytest
import trio
from network_swarm import NET, Log, Service, free_port, peers_on, running_swarm, seeds, until

from ledger.errors import ConfigError
from node.libp2p import Libp2pNetwork, probe_member
from node.libp2p.psk import xsalsa20
from node.line import Line, read_psk
from node.links import Timing
from node.network import Peer

KEY, OTHER = bytes(32), bytes([1]) * 32


async def test_members_with_the_same_key_meet_and_exchange_long_bodies() -> None:
    async with running_swarm("libp2p", 2, line=Line(psk=KEY)) as members:
        body = secrets.token_bytes(1_000_000)
        assert await members[0].ask(1, body, bytes_max=len(body)) == body
        assert await members[1].ask(0, body, bytes_max=len(body)) == body


@pytest.mark.parametrize(
    ("caller", "called", "says"),
    [
        (OTHER, KEY, "wrong pre-shared key"),
        (None, KEY, "no swarm node"),
        (KEY, None, "pre-shared key"),
    ],
    ids=["another key", "no key", "a key where none is asked for"],
)
async def test_another_key_is_named_by_both_ends(
    caller: bytes | None, called: bytes | None, says: str
) -> None:
    ports = [free_port(), free_port()]
    logs = [Log(), Log()]
    async with trio.open_nursery() as nursery:
        for index, psk in ((1, called), (0, caller)):
            network = Libp2pNetwork(
                own_index=index,
                network_seed=seeds(2)[index],
                listen=[f"/ip4/127.0.0.1/tcp/{ports[1]}"] if index else [],
                peers=[
                    peer if peer.index else Peer(index=0, name="0", network_key=peer.network_key)
                    for peer in peers_on(ports)
                ],
                net=NET,
                log=logs[index],
                timing=Timing(dial_s=1),
                line=Line(psk=psk),
            )
            await nursery.start(network.run, Service())
        await until(lambda: bool(logs[0].named("dial_failed")))
        assert says in str(logs[0].named("dial_failed")[0]["reason"])
        if called is not None:
            await until(lambda: bool(logs[1].named("psk_refused")))
            assert "pre-shared key" in str(logs[1].named("psk_refused")[0]["reason"])
        assert not network.connected()
        probed = await probe_member(
            network_seed=seeds(2)[0], peer=peers_on(ports)[1], timeout_s=1, psk=caller
        )
        assert says in str(probed)
        nursery.cancel_scope.cancel()


def test_the_cipher_is_xsalsa20_as_libsodium_has_it() -> None:
    key, nonce = secrets.token_bytes(32), secrets.token_bytes(24)
    zeros = bytes(100)
    sealed = nacl.bindings.crypto_secretbox(zeros, nonce, key)
    stream = xsalsa20(key, nonce).encrypt(bytes(132))
    assert sealed[16:] == stream[32:], "a box has 16 bytes of tag, and begins at byte 32"


def test_a_key_file_is_read_in_both_spellings_and_strictly(tmp_path: Path) -> None:
    file = tmp_path / "swarm.key"
    for text in (
        KEY.hex(),
        KEY.hex().upper() + "\n",
        f"/key/swarm/psk/1.0.0/\n/base16/\n{KEY.hex()}\n",
    ):
        file.write_text(text)
        assert read_psk(file) == KEY
    for text in ("", "ab" * 31, "zz" * 32, KEY.hex() + "\n" + KEY.hex()):
        file.write_text(text)
        with pytest.raises(ConfigError, match="64 hex digits"):
            read_psk(file)
    with pytest.raises(ConfigError, match="does not exist"):
        read_psk(tmp_path / "none")
    with pytest.raises(ValueError, match="32 bytes"):
        Line(psk=b"short")
    with pytest.raises(ValueError, match="Mbit/s"):
        Line(upload_mbit_s_max=0)


def test_a_line_does_not_show_its_key() -> None:
    assert "psk" not in repr(Line(psk=OTHER))
