"""A hospital's secret: one seed file from which every key comes. Spec: docs/ledger.md §3.

Room: node. Law: a seed file is readable by its owner alone, never overwritten, never printed.
"""

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from ledger.errors import ConfigError
from ledger.keys import SEED_BYTES, Signer, derive, generate_seed

if TYPE_CHECKING:
    from ledger.charter import Charter
    from ledger.roster import Roster
    from node.config import SitePaths

OWNER_ONLY: Final = 0o600
DIRECTORY_OWNER_ONLY: Final = 0o700


@final
@dataclass(frozen=True, slots=True)
class Identity:
    """The keys of one site. Its repr shows no secret."""

    seed: bytes = field(repr=False)

    def ledger(self, epoch: int = 0) -> Signer:
        """Signs this site's records."""
        return Signer(derive(self.seed, "ledger", epoch))

    def witness(self) -> Signer:
        """Cosigns other sites' checkpoints."""
        return Signer(derive(self.seed, "witness"))

    @property
    def network_seed(self) -> bytes:
        """Ed25519 seed of the transport: who we are in a handshake."""
        return derive(self.seed, "network")

    @property
    def network_key(self) -> bytes:
        """Public half of ``network_seed``."""
        return Signer(self.network_seed).public_key


def admin_signer(seed: bytes) -> Signer:
    """Signs roster updates, nothing else; made from the seed that stays offline."""
    return Signer(derive(seed, "admin"))


def create_identity(directory: Path) -> tuple[Identity, Signer]:
    """Make both seed files under ``directory``/keys; return the node's identity and the admin key.

    Raises ConfigError if either file is there already: a second key is a second hospital.
    """
    from node.config import SitePaths

    paths = SitePaths(directory)
    for path in (paths.seed, paths.admin_seed):
        if os.path.lexists(path):
            raise ConfigError(f"{path} exists: a key is never overwritten; choose a new directory")
    keys = paths.seed.parent
    try:
        keys.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_OWNER_ONLY)
        keys.chmod(DIRECTORY_OWNER_ONLY)
        seeds = [_write_secret(path, generate_seed()) for path in (paths.seed, paths.admin_seed)]
    except OSError as error:
        raise ConfigError(f"{keys}: cannot write keys: {error.strerror}") from error
    return Identity(seeds[0]), admin_signer(seeds[1])


def load_identity(paths: "SitePaths") -> Identity:
    """Read the node seed. Raises ConfigError: missing, unreadable, open to others, damaged."""
    return Identity(read_seed(paths.seed))


def read_seed(path: Path) -> bytes:
    """Read one seed file after checking who else could; ConfigError in one line."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: run `swarm-node init`, or put this site's own key back"
        ) from None
    except PermissionError:
        raise ConfigError(
            f"{path} cannot be read by this user: run as its owner, or `chown` it to this user"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a file: put this site's own key there")
        if status.st_mode & 0o077:
            raise ConfigError(
                f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}): "
                f"run `chmod 600 {path}`"
            )
        seed = os.read(descriptor, SEED_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(seed) != SEED_BYTES:
        raise ConfigError(
            f"{path} is damaged ({status.st_size} bytes, a seed has {SEED_BYTES}): "
            "put this site's own key back from its backup"
        )
    return seed


@final
@dataclass(frozen=True, slots=True)
class OwnPlace:
    """Where this site stands on a roster, and the key that signs its records there."""

    author: int
    epoch: int
    signer: Signer


def own_place(roster: "Roster", identity: Identity) -> OwnPlace:
    """Find this site on a roster. Raises ConfigError if its keys are not there, or not any more.

    A rotation may have come with a new seed (whose keys count from 0) or with the old seed's next
    key, so any of the seed's first keys may be the one of this epoch.
    """
    mine = [member for member in roster.members if member.network_key == identity.network_key]
    for member in roster.members:
        epoch = roster.epoch(member.index)
        for number in range(epoch + 1):
            signer = identity.ledger(number)
            if signer.public_key != member.ledger_key:
                continue
            if not roster.is_active(member.index):
                raise ConfigError(
                    f'"{member.name}" was removed from the federation by roster '
                    f"{roster.terms[member.index][-1].until}: this site takes no part any more"
                )
            if member.network_key != identity.network_key:
                raise ConfigError(
                    f'charter: the network key of "{member.name}" is not this site\'s: send '
                    "member.toml again"
                )
            return OwnPlace(member.index, epoch, signer)
    if mine:
        raise ConfigError(
            f'"{mine[0].name}" has gone on to epoch {roster.epoch(mine[0].index)} with another key: '
            "run the site that has it, and never this copy again"
        )
    raise ConfigError(
        "this site's keys are not in the charter: send member.toml to whoever assembles it, "
        "or put the right charter (or key) here"
    )


def check_own_name(roster: "Roster", author: int, name: str) -> None:
    """Refuse to run another hospital's keys: ``name`` is what site.toml says.

    A seed copied into the wrong folder would sign for the hospital that it was copied from, which
    may be signing too: a fork. Raises ConfigError.
    """
    from ledger.roster_update import folded

    keys_of = roster.member(author).name
    if folded(keys_of) != folded(name):
        raise ConfigError(
            f'site.toml says name = "{name}", and node.seed holds the keys of "{keys_of}": put this '
            f'site\'s own node.seed back, or, if this is "{keys_of}", set its name in site.toml'
        )


def own_index(charter: "Charter", identity: Identity) -> int:
    """Return this site's place on the charter. Raises ConfigError if its keys are not there."""
    from ledger.roster import Roster

    return own_place(Roster.from_charter(charter), identity).author


def _write_secret(path: Path, seed: bytes) -> bytes:
    """Create ``path`` with mode 0600 from its first byte on, and make it durable."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(seed)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)  # fails if path came to be meanwhile; rename would replace it
    finally:
        partial.unlink(missing_ok=True)
    return seed
