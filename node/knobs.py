"""Every setting of site.toml, once: its check, its default and when to change it.

Room: node. Law: the file that `init` writes, the strict reader and `config --effective` all come
from this one table, so they cannot drift apart. Knows no file.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from ledger.errors import ConfigError, PeerError

Value: TypeAlias = str | int | float | tuple[str, ...] | None
"""A checked setting; None = not set."""

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
NAME_CHARACTERS_MAX: Final = 128

_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadValueError(ValueError):
    """A setting has the wrong type, range or spelling; the text says what it needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Knob:
    """One setting. ``check`` turns a TOML value into a Value or raises BadValueError("need …")."""

    key: str
    """Dotted: table and name, or a bare name for the top of the file."""
    check: Callable[[object], Value]
    default: Value = None
    required: bool = False
    when: str
    """When to raise, lower or set it; becomes the comment in site.toml."""
    example: str | None = None
    """TOML text that `init` writes commented out where there is no default."""
    is_text: bool = False
    """On the command line, the value may stand without quotes."""

    @property
    def table(self) -> str:
        """Table that holds it; empty at the top of the file."""
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        """Key inside its table."""
        return self.key.rpartition(".")[2]


def text(value: object) -> str:
    """Take a string that is not empty and has no line break."""
    if not isinstance(value, str):
        raise BadValueError('need text in quotes, like "…"')
    if not value.strip() or not value.isprintable():
        raise BadValueError("need text that is not empty and has no line break")
    return value


def sql(value: object) -> str:
    """Take a query, which may run over several lines."""
    if not isinstance(value, str) or not value.strip():
        raise BadValueError('need a SELECT in quotes, like "SELECT * FROM data"')
    return value


def site_name(value: object) -> str:
    """Take a hospital's name as the others will see it."""
    name = text(value)
    if len(name) > NAME_CHARACTERS_MAX or name != name.strip():
        raise BadValueError(
            f"need 1 to {NAME_CHARACTERS_MAX} characters without spaces at the ends"
        )
    return name


def digest(value: object) -> str | None:
    """Take 64 hexadecimal digits; groups, spaces and capitals as read by phone are fine."""
    if not isinstance(value, str):
        raise BadValueError("need 64 hexadecimal digits in quotes")
    compact = re.sub(r"[\s:-]", "", value).lower()
    if compact and not _HEX_DIGEST.fullmatch(compact):
        raise BadValueError(f"need 64 hexadecimal digits, got {len(compact)} characters")
    return compact or None


def address(value: object) -> str:
    """Take a multiaddress of TCP: where a node listens or is dialled."""
    from node.addresses import parse_address

    try:
        return parse_address(text(value)).text
    except ConfigError as error:
        raise BadValueError(str(error)) from None


def listen_addresses(value: object) -> tuple[str, ...]:
    """Take a list of addresses to listen on; empty = outbound only."""
    if not isinstance(value, list | tuple):
        raise BadValueError('need a list, like ["/ip4/0.0.0.0/tcp/4001"]')
    addresses = tuple(address(item) for item in value)
    if any(item.startswith("/dns") for item in addresses):
        raise BadValueError(
            'listen needs an IP address of this machine, like "/ip4/0.0.0.0/tcp/4001"'
        )
    return addresses


def texts(value: object) -> tuple[str, ...]:
    """Take a list of strings without repeats."""
    if not isinstance(value, list | tuple):
        raise BadValueError('need a list, like ["a", "b"]')
    items = tuple(text(item) for item in value)
    if len(set(items)) != len(items):
        raise BadValueError("an entry appears twice")
    return items


def one_or_more(value: object) -> str | tuple[str, ...]:
    """Take one string or a list of them."""
    if isinstance(value, list | tuple):
        if not value:
            raise BadValueError("the list is empty")
        return texts(value)
    return text(value)


def whole(low: int, high: int) -> Callable[[object], int]:
    """Check whole numbers from low to high."""

    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise BadValueError(f"need a whole number from {low} to {high}")
        return value

    return check


def rounds_or_all(value: object) -> int | str:
    """Take a number of rounds, or "all"."""
    if value == "all":
        return "all"
    if type(value) is not int or not 0 <= value <= 1_000_000:
        raise BadValueError('need a number of rounds, like 2, or "all"')
    return value


def number(low: float, high: float, unit: str = "") -> Callable[[object], float]:
    """Check numbers from low to high in the unit that the key's name ends with."""

    def check(value: object) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise BadValueError(f"need a number from {low:g} to {high:g}{unit and ' ' + unit}")
        return float(value)

    return check


def yes_no(value: object) -> bool:
    """Take true or false."""
    if not isinstance(value, bool):
        raise BadValueError("need true or false, without quotes")
    return value


def addresses(value: object) -> tuple[str, ...]:
    """Take a list of addresses at which others dial."""
    if not isinstance(value, list | tuple):
        raise BadValueError('need a list, like ["/dns4/swarm.hospital.example/tcp/4001"]')
    from node.address_record import allowed_address

    found = tuple(dict.fromkeys(address(item) for item in value))
    for one in found:
        try:
            allowed_address(one, here=True)
        except PeerError as error:
            raise BadValueError(f"{error}: others could not dial it") from None
    return found


def one_of(*choices: str) -> Callable[[object], str]:
    """Check for one of a few words."""

    def check(value: object) -> str:
        if value not in choices:
            raise BadValueError("need one of " + ", ".join(f'"{choice}"' for choice in choices))
        return str(value)

    return check


TABLES: Final[Mapping[str, str]] = {
    "": "",
    "data": "Where this hospital's own patients are. Nothing of this table leaves the site.",
    "network": "How this site meets the others (docs/howto/network.md). The defaults suit most sites.",
    "run": "How this node runs. The defaults suit most sites.",
    "storage": "What this node keeps on its disk beside the ledger. The defaults suit most sites.",
}
"""Tables of site.toml in order, with the comment above each."""

KNOBS: Final[tuple[Knob, ...]] = (
    Knob(
        key="name",
        check=site_name,
        required=True,
        is_text=True,
        when="This hospital, as the others see it; as in member.toml.",
    ),
    Knob(
        key="charter",
        check=text,
        default="charter.toml",
        is_text=True,
        when="The federation's charter; relative to this file.",
    ),
    Knob(
        key="charter_digest",
        check=digest,
        is_text=True,
        example='""',
        when="Set once all sites have compared it by phone (`swarm-node charter digest`): "
        "any other charter is then refused.",
    ),
    Knob(
        key="listen",
        check=listen_addresses,
        default=("/ip4/0.0.0.0/tcp/4001",),
        when="Where others reach this node. Change the port if it is taken; "
        "[] if no inbound port can be opened.",
    ),
    Knob(
        key="allow",
        check=texts,
        default=(),
        when='Packages from which "python:" models and data may load. Add one only after reading it.',
    ),
    Knob(
        key="python_path",
        check=texts,
        default=(),
        when="Folders with this site's own Python modules, relative to this file; "
        "installed packages need none.",
    ),
    Knob(
        key="data.source",
        check=one_or_more,
        is_text=True,
        example='"patients.csv"',
        when='CSV or Parquet, relative to this file; several as ["a.csv", "b.csv"]; '
        'or "python:package.module:function".',
    ),
    Knob(
        key="data.query",
        check=sql,
        is_text=True,
        example="\"SELECT * FROM read_parquet('visits/*.parquet')\"",
        when="One SELECT (DuckDB) to rename, join or compute columns; with a source, that is "
        "the table `data`.",
    ),
    Knob(
        key="data.label",
        check=text,
        is_text=True,
        example='"readmitted"',
        when="Set it if the label's column has another name here than in the charter.",
    ),
    Knob(
        key="data.features",
        check=one_or_more,
        default="*",
        when='Own column names in the charter\'s order; "*" if they are named as in the charter.',
    ),
    Knob(
        key="data.validation",
        check=number(0.05, 0.95),
        default=0.3,
        when="Share of own patients kept for evaluation. Raise it if intervals are too wide.",
    ),
    Knob(
        key="data.split_seed",
        check=whole(0, 2**32 - 1),
        default=0,
        when="Another number draws another split. Keep it once training has begun.",
    ),
    Knob(
        key="data.group",
        check=text,
        is_text=True,
        example='"patient_id"',
        when="Set it if a patient has several rows: they then stay on one side of the split.",
    ),
    Knob(
        key="data.missing",
        check=one_of("median"),
        default="median",
        is_text=True,
        when="How gaps in numbers are filled: by this site's own median.",
    ),
    Knob(
        key="data.absent",
        check=texts,
        default=(),
        when="Features that this site never measures; they count as missing in every row and take "
        "the federation's mean. An empty column that is not named here is an error.",
    ),
    Knob(
        key="network.inbound",
        check=yes_no,
        default=True,
        when="false if nobody may connect to this site: it then listens nowhere, dials the others, and "
        "reaches those that do the same through a member that both reach.",
    ),
    Knob(
        key="network.addresses",
        check=addresses,
        default=(),
        when="Where the others dial this site now, if that is not (only) what the charter says. They are "
        "told at the next start; nobody edits a file.",
    ),
    Knob(
        key="network.forward_mb_s",
        check=number(0, 10_000, "MB/s"),
        default=8.0,
        when="Megabytes a second carried, sealed, for each two members that cannot connect. "
        "Raise it if their models are large; 0 carries nothing.",
    ),
    Knob(
        key="network.upload_mbit_s_max",
        check=number(0, 1_000_000, "megabits a second"),
        default=0.0,
        when="Most megabits a second of models that this site hands out; 0 = as many as the line takes. "
        "Lower it where the line has other work; rounds take longer.",
    ),
    Knob(
        key="network.peer_upload_mbit_s_max",
        check=number(0, 1_000_000, "megabits a second"),
        default=0.0,
        when="The same for each member alone; 0 = no limit of its own.",
    ),
    Knob(
        key="network.mdns",
        check=yes_no,
        default=False,
        when="true to find members on the same LAN without addresses; it tells the LAN that this "
        "node is there.",
    ),
    Knob(
        key="network.psk_file",
        check=text,
        is_text=True,
        example='"swarm.key"',
        when="A key that all members hold, so that strangers are not even answered. All sites need the "
        "same one, or none.",
    ),
    Knob(
        key="run.threads",
        check=whole(1, 256),
        default=1,
        when="Cores for training. Raise it for large models; 1 gives the same bits on each run.",
    ),
    Knob(
        key="run.linger_s",
        check=number(0, 30 * 86_400, "seconds"),
        default=600.0,
        when="How long to stay after the last round for hospitals that are behind. "
        "Raise it if sites restart slowly.",
    ),
    Knob(
        key="run.sync_interval_s",
        check=number(0.05, 3600, "seconds"),
        default=2.0,
        when="How often ledgers are compared. Raise it on slow lines with many members.",
    ),
    Knob(
        key="run.log_level",
        check=one_of(*LOG_LEVELS),
        default="info",
        is_text=True,
        when='What goes to node.log and the terminal. "debug" while looking for a fault.',
    ),
    Knob(
        key="storage.payload_bytes_max",
        check=whole(1_000_000, 2**62),
        default=20_000_000_000,
        when="Most bytes of models and updates on the disk. A round needs about one model for each "
        "member; with no room left this node takes no more from others and says so.",
    ),
    Knob(
        key="storage.keep_rounds",
        check=rounds_or_all,
        default=2,
        is_text=True,
        when='Finished rounds whose updates stay, for hospitals that are behind. "all" keeps everything, '
        "so that `swarm-audit --recompute` can do every merge again.",
    ),
    Knob(
        key="storage.snapshot_interval_s",
        check=number(0, 86_400, "seconds"),
        default=60.0,
        when="How often a training is saved in the middle of a round: what a crash may cost. "
        "Raise it if a save takes long; 0 = after every step.",
    ),
)

BY_KEY: Final[Mapping[str, Knob]] = {knob.key: knob for knob in KNOBS}


def to_toml(value: Value) -> str:
    """Spell a setting as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value is None:
        return '""'
    return repr(value)
