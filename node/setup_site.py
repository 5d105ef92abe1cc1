"""Making a new site: keys, site.toml, member.toml. Room: node. Law: overwrites nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import ConfigError
from node.addresses import parse_address
from node.charter_edit import member_block
from node.config import SITE_FILE, SitePaths, template
from node.identity import create_identity
from node.knobs import BY_KEY, BadValueError, Value, address, site_name

ROLE = "hospital"


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSite:
    """What `init` made."""

    paths: SitePaths
    addresses: tuple[str, ...]
    member_block: str

    @property
    def site_file(self) -> Path:
        """The commented configuration."""
        return self.paths.directory / SITE_FILE


def create_site(
    directory: Path,
    *,
    name: str,
    listen: Sequence[str] | None = None,
    addresses: Sequence[str] | None = None,
    sources: Sequence[str] = (),
) -> NewSite:
    """Create a site in ``directory``. Raises ConfigError before anything is written.

    addresses: where others dial it; None = the listen addresses that name one machine.
    """
    settings: dict[str, Value] = {"name": _checked("--name", site_name, name)}
    if listen is not None:
        settings["listen"] = _checked("--listen", BY_KEY["listen"].check, tuple(listen))
    if sources:
        settings["data.source"] = sources[0] if len(sources) == 1 else tuple(sources)
    dialled = tuple(
        str(_checked("--address", _dialled, one))
        for one in (_reachable(listen or ()) if addresses is None else addresses)
    )
    directory = directory.absolute()
    paths = SitePaths(directory)
    for path in (directory / SITE_FILE, paths.member):
        if path.exists():
            raise ConfigError(f"{path} exists: choose a new directory, or move it away")
    identity, admin = create_identity(directory)
    block = member_block(
        {
            "name": name,
            "role": ROLE,
            "addresses": dialled,
            "ledger_key": identity.ledger().public_key.hex(),
            "witness_key": identity.witness().public_key.hex(),
            "admin_key": admin.public_key.hex(),
            "network_key": identity.network_key.hex(),
        }
    )
    try:
        (directory / SITE_FILE).write_text(template(settings), encoding="utf-8")
        paths.member.write_text(block, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot write there: {error.strerror}") from error
    return NewSite(paths=paths, addresses=dialled, member_block=block)


def _reachable(listen: Sequence[str]) -> list[str]:
    """Take the listen addresses that mean one machine and one port, so others could dial them."""
    return [one for one in listen if _names_one_machine(one)]


def _names_one_machine(multiaddr: str) -> bool:
    parsed = parse_address(multiaddr)
    return parsed.port > 0 and parsed.host not in ("0.0.0.0", "::")  # noqa: S104 - not bound to


def _dialled(value: object) -> str:
    text = address(value)
    if not _names_one_machine(text):
        raise BadValueError(
            f"address {text!r} leads nowhere from another machine: give the name or number that the "
            "others dial, like /dns4/swarm.hospital.example/tcp/4001"
        )
    return text


def _checked(option: str, check: Callable[[object], Value], value: object) -> Value:
    try:
        return check(value)
    except BadValueError as error:
        raise ConfigError(f"{option}: {error}") from None
