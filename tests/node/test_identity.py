"""A key file is its owner's alone, made once, and every fault names the remedy."""

import os
import stat
from pathlib import Path

import pytest
from site_factory import make_federation

from ledger.charter import load_charter
from ledger.errors import ConfigError
from ledger.keys import check_public_key
from node.config import SitePaths
from node.identity import admin_signer, create_identity, load_identity, own_index, read_seed


def test_keys_are_for_the_owner_alone_and_all_different(tmp_path: Path) -> None:
    identity, admin = create_identity(tmp_path)
    paths = SitePaths(tmp_path)
    for path in (paths.seed, paths.admin_seed):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.seed.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in paths.seed.parent.iterdir()) == ["admin.seed", "node.seed"]
    keys = {
        identity.ledger().public_key,
        identity.ledger(1).public_key,
        identity.witness().public_key,
        identity.network_key,
        admin.public_key,
    }
    assert len(keys) == 5
    for key in keys:
        check_public_key(key)
    assert load_identity(paths) == identity
    assert admin_signer(read_seed(paths.admin_seed)).public_key == admin.public_key


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    create_identity(tmp_path)
    before = SitePaths(tmp_path).seed.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        create_identity(tmp_path)
    assert SitePaths(tmp_path).seed.read_bytes() == before


def test_the_secret_shows_in_no_repr(tmp_path: Path) -> None:
    identity, _ = create_identity(tmp_path)
    shown = repr(identity) + repr(identity.ledger())
    assert identity.seed.hex() not in shown
    assert repr(identity.seed) not in shown


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    create_identity(tmp_path)
    path = SitePaths(tmp_path).seed
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        load_identity(SitePaths(tmp_path))


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, b"x" * 5000])
def test_a_damaged_key_is_refused(tmp_path: Path, content: bytes) -> None:
    create_identity(tmp_path)
    path = SitePaths(tmp_path).seed
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        load_identity(SitePaths(tmp_path))


def test_a_missing_key_and_a_folder_in_its_place_are_said_so(tmp_path: Path) -> None:
    paths = SitePaths(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_identity(paths)
    paths.seed.mkdir(parents=True)
    with pytest.raises(ConfigError, match="not a file"):
        load_identity(paths)


def test_a_key_that_this_user_cannot_read_is_said_so(tmp_path: Path) -> None:
    create_identity(tmp_path)
    paths = SitePaths(tmp_path)
    paths.seed.chmod(0o000)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # the superuser reads everything
    try:
        with pytest.raises(ConfigError, match="cannot be read by this user"):
            load_identity(paths)
    finally:
        os.seteuid(user)


def test_a_site_finds_its_place_by_its_keys(tmp_path: Path) -> None:
    sites = make_federation(tmp_path, ("Anna", "Berta", "Clara"))
    charter = load_charter(sites[0].charter.read_bytes())
    found = [own_index(charter, load_identity(SitePaths(s.directory))) for s in sites]
    assert found == [0, 1, 2]
    stranger, _ = create_identity(tmp_path / "stranger")
    with pytest.raises(ConfigError, match=r"keys are not in the charter: send member\.toml"):
        own_index(charter, stranger)


def test_a_member_block_with_another_network_key_is_noticed(tmp_path: Path) -> None:
    (site,) = make_federation(tmp_path)
    other, _ = create_identity(tmp_path / "other")
    identity = load_identity(SitePaths(site.directory))
    text = site.charter.read_text().replace(identity.network_key.hex(), other.network_key.hex())
    with pytest.raises(ConfigError, match="network key"):
        own_index(load_charter(text.encode()), identity)
