"""What a site says of its line: how fast payloads may leave, and the federation's pre-shared key.

Room: node. Knows no libp2p. The knobs are in node/knobs.py.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger.errors import ConfigError
from node.config import SiteConfig, read_file

PSK_BYTES: Final = 32
_PSK_FILE_BYTES_MAX: Final = 4096
_PSK_HEADER: Final = "/key/swarm/psk/1.0.0/\n/base16/\n"
_PSK_MADE: Final = "make one with `openssl rand -hex 32` and bring it to every member"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Limits of a site's line.

    upload_mbit_s_max: all payloads that leave, together; lower it to leave room for others on the
    site's line. peer_upload_mbit_s_max: what leaves for one member. psk: 32 bytes; None = no filter.
    """

    upload_mbit_s_max: float | None = None
    peer_upload_mbit_s_max: float | None = None
    psk: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for limit in (self.upload_mbit_s_max, self.peer_upload_mbit_s_max):
            if limit is not None and not limit > 0:
                raise ValueError("a line carries more than 0 Mbit/s")
        if self.psk is not None and len(self.psk) != PSK_BYTES:
            raise ValueError(f"a pre-shared key has {PSK_BYTES} bytes, got {len(self.psk)}")


def line_of(config: SiteConfig) -> Line:
    """Return a site's line. Raises ConfigError if its psk_file cannot be used."""
    network = config.network
    return Line(
        upload_mbit_s_max=network.upload_mbit_s_max or None,
        peer_upload_mbit_s_max=network.peer_upload_mbit_s_max or None,
        psk=read_psk(config.directory / network.psk_file) if network.psk_file else None,
    )


def read_psk(path: Path) -> bytes:
    """Read 64 hex digits, alone or under the two lines of libp2p's swarm.key. Raises ConfigError."""
    data = read_file(path, bytes_max=_PSK_FILE_BYTES_MAX, what="psk_file", advice=_PSK_MADE)
    digits = data.decode(errors="replace").removeprefix(_PSK_HEADER).strip()
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        raise ConfigError(f"psk_file {path} does not hold 64 hex digits: {_PSK_MADE}")
    return bytes.fromhex(digits)
