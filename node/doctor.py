"""Everything that can be wrong before the first round, found before it.

Room: node. Law: looks, never changes: no record is signed, no file of the site is touched. A check
that rests on another is left out when that one failed.
"""

import platform
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from ledger.charter import Charter
from ledger.errors import ConfigError, StoreError
from ledger.roster import Roster
from node.charter_words import parameter_count
from node.config import SiteConfig, load_site_charter
from node.findings import Finding, Level, fail, ok, warn
from node.identity import Identity, check_own_name, load_identity, own_place, read_seed
from node.roster_files import known_to_site
from node.software import software_version
from node.status import ask

__all__ = ["Finding", "Level", "examine"]

FREE_BYTES_MIN: Final = 200_000_000
ROUNDS_BESIDES: Final = 2
"""Beside the finished rounds that stay: the open one, and what is not removed yet."""
PARAMETER_BYTES: Final = 4
PAYLOAD_BYTES_GUESS: Final = 10_000_000
"""Where the model is the hospital's own and its size not known yet."""

UseSite = Callable[[Path, Mapping[str, str]], SiteConfig]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """The site under examination, with what the first checks found out about it."""

    config: SiteConfig
    charter: Charter
    identity: Identity | None
    own: int | None
    running: bool


def examine(
    path: Path, overrides: Mapping[str, str], *, offline: bool, use_site: UseSite
) -> Iterator[Finding]:
    """Yield findings as they are made. Raises nothing for what is wrong with the site.

    use_site: loads the settings (and makes the site's own modules importable).
    """
    yield _versions()
    try:
        config = use_site(path, overrides)
    except ConfigError as error:
        yield fail("configuration", str(error))
        return
    yield ok("configuration", f"site {config.name} in {config.directory}")
    yield from _folders(config)
    yield from _disk_writable(config)
    running = ask(config.paths.socket) is not None
    identity = None
    try:
        identity = load_identity(config.paths)
        yield ok("keys", "readable by this user alone")
    except ConfigError as error:
        yield fail("keys", str(error))
    yield from _admin_key(config)
    yield from _listen(config, running=running)
    try:
        charter = load_site_charter(config)
    except ConfigError as error:
        yield fail("charter", str(error))
        return
    own = None
    try:
        roster = known_to_site(config).roster
        yield from _charter(config, charter, roster)
        if identity is not None:
            own = own_place(roster, identity).author
            yield from _membership(config, roster, own)
        # Whom this site dials from now on: those who are members now.
        charter = replace(charter, members=roster.active)
    except (ConfigError, StoreError) as error:
        yield fail("membership", str(error))
    patient = Patient(config=config, charter=charter, identity=identity, own=own, running=running)
    yield _disk_space(patient)
    if identity is not None and own is not None and not offline:
        from node.doctor_network import check_network

        yield from check_network(config, roster, identity, own)
    from node.doctor_learning import check_learning

    yield from check_learning(config, charter)


def _versions() -> Finding:
    parts = [f"swarm-node {software_version()}", f"Python {platform.python_version()}"]
    missing = []
    for package in ("torch", "libp2p", "duckdb"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return fail(
            "versions",
            f"{', '.join(missing)} not installed",
            "install the node's extra: pip install 'swarm-node[node]'",
        )
    return ok("versions", ", ".join(parts))


def _folders(config: SiteConfig) -> Iterator[Finding]:
    for folder in config.python_path:
        if not folder.is_dir():
            yield fail("python_path", f"{folder} is no folder", "correct python_path in site.toml")


def _admin_key(config: SiteConfig) -> Iterator[Finding]:
    path = config.paths.admin_seed
    if not path.exists():
        yield ok("admin key", "not on this machine, as it should be")
        return
    try:
        read_seed(path)
    except ConfigError as error:
        yield fail("admin key", str(error))
        return
    yield warn(
        "admin key",
        f"{path} is on this machine",
        "move it offline, it only signs changes of members",
    )


def _charter(config: SiteConfig, charter: Charter, roster: Roster) -> Iterator[Finding]:
    yield ok(
        "charter",
        f"federation {charter.federation}, n = {roster.n}, f = {roster.f}, q = {roster.q}",
    )
    if config.charter_digest is None:
        yield warn(
            "charter",
            "its digest is not pinned",
            "compare `swarm-node charter digest` by phone, then set charter_digest in site.toml",
        )
    else:
        yield ok("charter", "its digest is the pinned one")


def _membership(config: SiteConfig, roster: Roster, own: int) -> Iterator[Finding]:
    member = roster.member(own)
    yield ok("membership", f"member {own} of {roster.n}, {member.name}")
    try:
        check_own_name(roster, own, config.name)
    except ConfigError as error:
        yield fail("membership", str(error))
    if config.listen and not member.addresses:
        yield warn(
            "membership",
            "the charter holds no address of this site, so it must dial the others",
            "if it can be reached, have addresses added before the charter is signed",
        )


def _listen(config: SiteConfig, *, running: bool) -> Iterator[Finding]:
    from node.addresses import check_listen

    if not config.listen:
        yield ok("listen", "no inbound port: this site dials the others")
    for address in config.listen:
        problem = check_listen(address)
        if problem is None:
            yield ok("listen", f"{address} is free")
        elif running:
            yield ok("listen", f"{address} is held by this site's running node")
        else:
            yield fail("listen", problem)


def _disk_writable(config: SiteConfig) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=config.directory):
            pass
    except OSError as error:
        yield fail(
            "disk",
            f"{config.directory} cannot be written: {error.strerror}",
            "give this user write permission there",
        )
        return
    mode = stat.S_IMODE(config.directory.stat().st_mode)
    if mode & stat.S_IWOTH:
        yield fail(
            "disk",
            f"{config.directory} can be written by everybody (mode {mode:04o})",
            f"run `chmod o-w {config.directory}`",
        )


def _disk_space(patient: Patient) -> Finding:
    charter = patient.charter
    count = parameter_count(charter.model, charter.schema)
    payload_bytes = count * PARAMETER_BYTES if count else PAYLOAD_BYTES_GUESS
    storage = patient.config.storage
    kept = charter.rounds.rounds
    if storage.keep_rounds != "all":
        kept = min(kept, int(storage.keep_rounds) + ROUNDS_BESIDES)
    needed = payload_bytes * (len(charter.members) + 1) * kept
    free = shutil.disk_usage(patient.config.directory).free
    said = f"{free / 1e9:.1f} GB free in {patient.config.directory}"
    if free < FREE_BYTES_MIN:
        return fail("disk", said, f"free at least {FREE_BYTES_MIN / 1e9:.1f} GB")
    if free < needed:
        return warn("disk", f"{said}, {kept} rounds may take {needed / 1e9:.1f} GB", "make room")
    if storage.payload_bytes_max < needed:
        allowed = f"storage.payload_bytes_max allows {storage.payload_bytes_max / 1e9:.1f} GB"
        return warn("disk", f"{allowed}, {kept} rounds may take {needed / 1e9:.1f} GB", "raise it")
    return ok("disk", f"{said}, writable")
