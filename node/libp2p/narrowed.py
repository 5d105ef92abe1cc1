"""libp2p, narrowed: it reads no key but Ed25519's, and no long line or list of names in a negotiation.

Its own code takes whatever it is sent, most of that before anybody has shown who it is. It is
replaced for the whole process, before the first handshake (gate.py). Spec: docs/wire.md §2.
"""

from typing import Final, final

from libp2p.crypto.keys import KeyType
from libp2p.crypto.serialization import key_type_to_public_key_deserializer as readers
from libp2p.exceptions import ParseError
from libp2p.host import basic_host
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import IOException
from libp2p.protocol_muxer import generic_selector
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

LINE_BYTES_MAX: Final = 1024
"""Of one line of a negotiation; ours have at most 127."""
LINES_MAX: Final = 16
"""What is read in one negotiation: the greeting, and the names of a peer that proposes many."""


def narrow() -> None:
    """Replace what would take too much. Done again, it changes nothing."""
    for kind in readers.keys() - {KeyType.Ed25519.value}:
        del readers[kind]  # an RSA key of 15 KB is parsed for 0.6 s, before any signature
    for module in (basic_host, generic_selector):
        vars(module)["MultiselectCommunicator"] = Negotiation


@final
class Negotiation(MultiselectCommunicator):
    """The lines of one negotiation, on a connection or a stream. What comes after is not its own."""

    def __init__(self, read_writer: ReadWriteCloser) -> None:
        super().__init__(read_writer)
        self._lines = 0

    async def read(self) -> str:
        """Return the next line. Raises MultiselectCommunicatorError."""
        self._lines += 1
        if self._lines > LINES_MAX:
            raise MultiselectCommunicatorError(f"over {LINES_MAX} lines and no agreement")
        try:
            data = await read_varint_prefixed_bytes_limited(self.read_writer, LINE_BYTES_MAX)
            line = data.decode()
        except (ParseError, IOException, UnicodeDecodeError) as error:
            raise MultiselectCommunicatorError("no line came") from error
        if not line.endswith("\n"):
            raise MultiselectCommunicatorError("what came is no line")
        return line[:-1]
