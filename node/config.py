"""One hospital's settings: site.toml, read strictly, merged with the command line.

Room: node. Law: configuration is checked at birth and frozen; a mistake is one line that names the
file, the key and what to change (law 7).
"""

import difflib
import hashlib
import os
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledger.errors import ConfigError
from node.data_config import DataConfig
from node.knobs import BY_KEY, KNOBS, TABLES, BadValueError, Knob, Value, to_toml

if TYPE_CHECKING:
    from ledger.charter import Charter

SITE_FILE: Final = "site.toml"
SITE_BYTES_MAX: Final = 1 << 20
SOCKET_PATH_BYTES_MAX: Final = 103
"""sun_path holds 104 bytes on macOS and the BSDs, 108 on Linux, each with a final zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """How this node runs; every field is explained in node/knobs.py."""

    threads: int = 1
    linger_s: float = 600.0
    sync_interval_s: float = 2.0
    log_level: str = "info"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """How this site meets the others; every field is explained in node/knobs.py."""

    inbound: bool = True
    addresses: tuple[str, ...] = ()
    forward_mb_s: float = 8.0
    mdns: bool = False
    upload_mbit_s_max: float = 0.0
    peer_upload_mbit_s_max: float = 0.0
    psk_file: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig:
    """What this node keeps; every field is explained in node/knobs.py."""

    payload_bytes_max: int = 20_000_000_000
    keep_rounds: int | str = 2
    snapshot_interval_s: float = 60.0


@dataclass(frozen=True, slots=True)
class SitePaths:
    """Where a site's files lie: all of them in its directory."""

    directory: Path

    @property
    def seed(self) -> Path:
        """The node seed, secret."""
        return self.directory / "keys" / "node.seed"

    @property
    def admin_seed(self) -> Path:
        """The admin key's seed, secret, to be kept offline."""
        return self.directory / "keys" / "admin.seed"

    @property
    def member(self) -> Path:
        """The public block that goes to the other hospitals."""
        return self.directory / "member.toml"

    @property
    def ledger(self) -> Path:
        """Everybody's records."""
        return self.directory / "ledger.db"

    @property
    def blobs(self) -> Path:
        """Payloads by digest."""
        return self.directory / "blobs"

    @property
    def training(self) -> Path:
        """The snapshot of a training that goes on."""
        return self.directory / "training.safetensors"

    @property
    def inbox(self) -> Path:
        """Roster updates that `roster submit` leaves for a node that runs."""
        return self.directory / "inbox"

    @property
    def log(self) -> Path:
        """JSON lines."""
        return self.directory / "node.log"

    @property
    def socket(self) -> Path:
        """Where a running node answers `status`; see ``socket_path``."""
        return socket_path(self.directory)


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteConfig:
    """Everything a node needs to know of its own hospital."""

    directory: Path
    name: str
    charter_path: Path
    charter_digest: str | None
    listen: tuple[str, ...]
    """Where it really listens: nowhere if ``network.inbound`` is false."""
    data: DataConfig
    run: RunConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    allow: tuple[str, ...] = ()
    python_path: tuple[Path, ...] = ()
    settings: Mapping[str, Value] = field(default_factory=dict, repr=False, compare=False)
    """Every knob's value, for ``effective``."""
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Knobs that do not have their default, and where their value came from."""

    @property
    def paths(self) -> SitePaths:
        """Where this site's files lie."""
        return SitePaths(self.directory)


def socket_path(directory: Path) -> Path:
    """Return the Unix socket of the node in ``directory``; `run` and `status` both ask here.

    It lies in the directory unless that makes the path too long for the kernel; then under the
    temporary directory, named after a hash of the directory.
    """
    directory = directory.resolve()
    inside = directory / "node.sock"
    if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
        return inside
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"swarm-node-{name}.sock"


def load_site(path: Path, overrides: Mapping[str, str] | None = None) -> SiteConfig:
    """Read site.toml (or the one in a directory) and lay ``overrides`` over it.

    overrides: dotted key → value as typed on the command line (``run.linger_s`` → ``5``).
    Raises ConfigError in one line.
    """
    path = path / SITE_FILE if path.is_dir() else path
    settings: dict[str, Value] = {knob.key: knob.default for knob in KNOBS}
    origins: dict[str, str] = {}
    for key, raw in _flatten(path, _read_toml(path)):
        settings[key] = _checked(path.name, BY_KEY[key], raw)
        origins[key] = path.name
    for key, typed in (overrides or {}).items():
        knob = BY_KEY.get(key)
        if knob is None:
            raise ConfigError(f"--set {key}: no such setting{_near(key, BY_KEY)}")
        settings[key] = _checked("--set", knob, _typed_value(knob, typed))
        origins[key] = "command line"
    for knob in KNOBS:
        if knob.required and knob.key not in origins:
            raise ConfigError(f"{path.name}: {knob.key} is missing: {knob.when}")
    return _site(path.parent.resolve(), settings, origins)


def load_site_charter(config: SiteConfig) -> "Charter":
    """Read the site's charter and hold it against the digest pinned in site.toml.

    Raises ConfigError in one line: missing, unreadable, malformed, another charter than agreed.
    """
    charter = load_charter_file(
        config.charter_path,
        advice="copy the federation's charter there, or set charter in site.toml",
    )
    pinned = config.charter_digest
    if pinned is not None and charter.digest_hex != pinned:
        raise ConfigError(
            f"{config.charter_path.name}: digest is {charter.digest_hex[:16]}…, but charter_digest "
            f"in {SITE_FILE} pins {pinned[:16]}…: get the charter that all sites compared by phone"
        )
    return charter


def load_charter_file(path: Path, *, complete: bool = True, advice: str = "") -> "Charter":
    """Read any charter file; with ``complete`` false, also one without members.

    Raises ConfigError in one line that starts with the file's name, also where its choices do not go
    together.
    """
    from ledger.charter import CHARTER_BYTES_MAX, load_charter
    from swarm.learning.fits import check_fits

    data = read_file(path, bytes_max=CHARTER_BYTES_MAX, what="charter", advice=advice)
    charter = load_charter(data, complete=complete, file=path.name)
    check_fits(charter, file=path.name)
    return charter


def read_file(path: Path, *, bytes_max: int, what: str, advice: str = "") -> bytes:
    """Read a whole file of the operator's, with one line for everything that can go wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{what} {path} does not exist: {advice or 'name another file'}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from error
    if len(data) > bytes_max:
        raise ConfigError(f"{what} {path} has more than {bytes_max} bytes: is it the right file?")
    return data


def effective(config: SiteConfig) -> str:
    """Return TOML text of every setting in force, with where each value came from."""
    lines = [f"# {config.directory / SITE_FILE}: defaults, file and command line merged"]
    for table in TABLES:
        lines += ["", f"[{table}]"] if table else []
        for knob in KNOBS:
            if knob.table == table:
                value = config.settings.get(knob.key, knob.default)
                origin = config.origins.get(knob.key, "default")
                if value is None:
                    lines.append(f"# {knob.name} is not set  # {origin}")
                else:
                    lines.append(f"{knob.name} = {to_toml(value)}  # {origin}")
    return "\n".join(lines) + "\n"


def template(settings: Mapping[str, Value]) -> str:
    """Return a site.toml with a comment on every knob; `init` writes it."""
    lines = ["# One hospital's node. Secrets are in keys/; nothing here is secret."]
    for table, comment in TABLES.items():
        if table:
            lines += ["", f"# {comment}", f"[{table}]"]
        for knob in KNOBS:
            if knob.table != table:
                continue
            value = settings.get(knob.key, knob.default)
            lines += ["", f"# {knob.when}"]
            unset = value is None
            lines.append(
                f"{'# ' if unset else ''}{knob.name} = {knob.example if unset else to_toml(value)}"
            )
    return "\n".join(lines) + "\n"


def _site(directory: Path, settings: dict[str, Value], origins: dict[str, str]) -> SiteConfig:
    def table(name: str) -> dict[str, Any]:
        keys = (knob for knob in KNOBS if knob.table == name)
        return {k.name: settings[k.key] for k in keys if settings[k.key] is not None}

    top = table("")
    try:
        data = DataConfig(**table("data"))
    except ConfigError as error:
        raise ConfigError(_prefixed(SITE_FILE, error)) from error
    network = NetworkConfig(**table("network"))
    listen = top["listen"] if network.inbound else ()
    if network.addresses and not listen:
        raise ConfigError(
            f"{SITE_FILE}: network.addresses: others cannot dial a site that listens nowhere: "
            "set listen and network.inbound, or remove the addresses"
        )
    return SiteConfig(
        directory=directory,
        name=top["name"],
        charter_path=directory / top["charter"],
        charter_digest=top.get("charter_digest"),
        listen=listen,
        allow=top["allow"],
        python_path=tuple(directory / folder for folder in top["python_path"]),
        data=data,
        run=RunConfig(**table("run")),
        storage=StorageConfig(**table("storage")),
        network=network,
        settings=settings,
        origins=origins,
    )


def _read_toml(path: Path) -> dict[str, Any]:
    advice = "name a site's folder with --config, or make one with `swarm-node init`"
    data = read_file(path, bytes_max=SITE_BYTES_MAX, what="configuration", advice=advice)
    return parse_toml(data, path)


def parse_toml(data: bytes, path: Path) -> dict[str, Any]:
    """Parse an operator's TOML file. Raises ConfigError with the line and column of the mistake."""
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name}: not UTF-8 text: save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not TOML: {error}") from None


def _flatten(path: Path, document: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    for key, value in document.items():
        if not isinstance(value, dict):
            yield _known(path, key), value
        elif key not in TABLES:
            raise ConfigError(f"{path.name}: unknown table [{key}]{_near(key, TABLES)}")
        else:
            for name, inner in value.items():
                yield _known(path, f"{key}.{name}"), inner


def _known(path: Path, key: str) -> str:
    if key in BY_KEY:
        return key
    if key in TABLES:
        raise ConfigError(f"{path.name}: {key} is a table: write [{key}] on a line of its own")
    raise ConfigError(f"{path.name}: unknown key {key}{_near(key, BY_KEY)}")


def _near(key: str, known: Iterable[str]) -> str:
    known = [name for name in known if name]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or [
        name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]
    ]
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"


def _checked(source: str, knob: Knob, raw: object) -> Value:
    try:
        return knob.check(raw)
    except BadValueError as error:
        raise ConfigError(f"{source}: {knob.key}: {error}") from None


def _typed_value(knob: Knob, typed: str) -> object:
    """Read a value as typed in a shell: TOML, or text without its quotes."""
    if knob.is_text and not typed.lstrip().startswith(('"', "'", "[")):
        return typed
    try:
        return tomllib.loads(f"value = {typed}")["value"]
    except tomllib.TOMLDecodeError:
        return typed


def _prefixed(name: str, error: ConfigError) -> str:
    text = str(error)
    return text if text.startswith(name) else f"{name}: {text}"
