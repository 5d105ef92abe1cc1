"""Hospitals join, leave and start anew by what their engineers type; an admin key signs once."""

import json
from pathlib import Path

import pytest
from ledger_at_site import write_log
from site_factory import Site, assert_one_line_error, make_federation, run_command

from ledger.charter import load_charter
from ledger.keys import Signer
from ledger.roster_store import load_roster
from ledger.store import Store
from ledger.verify import verify_bundles
from node.admin_note import Vote, note_path, remember
from node.cli import call
from node.config import SitePaths
from node.identity import load_identity, own_place

NAMES = ("Anna", "Berta", "Carla", "Dora")


@pytest.fixture
def sites(tmp_path: Path) -> list[Site]:
    sites = make_federation(tmp_path, NAMES)
    for site in sites:
        write_log(site, [one.directory for one in sites])
    return sites


def admin(site: Site) -> Path:
    return site.directory / "keys" / "admin.seed"


def init(directory: Path, name: str) -> Path:
    assert (
        call(["init", str(directory), "--name", name, "--listen", "/ip4/127.0.0.1/tcp/4999"]) == 0
    )
    return directory / "member.toml"


def sign(file: Path, *sites: Site) -> None:
    for site in sites:
        command = ["roster", "sign", str(file), "--admin-seed", str(admin(site))]
        assert call([*command, "--config", str(site.config)]) == 0


def test_a_hospital_joins_and_nobody_elses_files_change(
    sites: list[Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, berta, carla, dora = sites
    before = {p: p.read_bytes() for p in dora.directory.rglob("*") if p.is_file()}
    block, file = init(tmp_path / "emma", "Emma"), tmp_path / "r.update"
    config = ["--config", str(anna.config)]
    propose = ["roster", "propose", "add", "--member", str(block), "--out", str(file), *config]
    assert call(propose) == 0
    sign(file, anna, berta)
    capsys.readouterr()
    assert call(["roster", "submit", str(file), *config]) == 2
    assert_one_line_error(capsys.readouterr().err, "E_ROSTER_QUORUM")
    sign(file, carla)
    assert call(["roster", "submit", str(file), *config]) == 0
    assert "Emma" in capsys.readouterr().out
    assert call(["roster", "submit", str(file), *config]) == 0  # again: nothing happens
    capsys.readouterr()
    assert call(["roster", "show", *config]) == 0
    shown = capsys.readouterr().out
    assert '"Emma" joins as author 4' in shown
    assert "signed by Anna, Berta, Carla" in shown
    assert {p: p.read_bytes() for p in dora.directory.rglob("*") if p.is_file()} == before
    with Store.open(anna.directory / "ledger.db", read_only=True) as store:
        roster = load_roster(store, load_charter(anna.charter.read_bytes()))
    identity = load_identity(SitePaths(tmp_path / "emma"))
    assert own_place(roster, identity).author == 4


def test_an_admin_key_signs_once_for_each_version(
    sites: list[Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, berta, *_ = sites
    one, other = tmp_path / "one", tmp_path / "other"
    config = ["--config", str(anna.config)]
    assert call(["roster", "propose", "remove", "Dora", "--out", str(one), *config]) == 0
    assert call(["roster", "propose", "remove", "Carla", "--out", str(other), *config]) == 0
    sign(one, anna)
    sign(one, anna)  # the same again is the same signature
    capsys.readouterr()
    before = other.read_bytes()
    command = ["roster", "sign", str(other), "--admin-seed", str(admin(anna)), *config]
    assert call(command) == 2
    assert_one_line_error(capsys.readouterr().err, "signs once for each version", "--version")
    assert other.read_bytes() == before
    # A split vote burns the number, not the federation.
    later = tmp_path / "later"
    propose = ["roster", "propose", "remove", "Carla", "--version", "2", "--out", str(later)]
    assert call([*propose, *config]) == 0
    sign(later, anna, berta)
    capsys.readouterr()
    assert call(["roster", "sign", str(one), "--admin-seed", str(admin(berta)), *config]) == 2
    assert_one_line_error(capsys.readouterr().err, "given up")


def test_the_note_is_there_before_the_signature_and_damage_stops_the_pen(tmp_path: Path) -> None:
    seed = tmp_path / "admin.seed"
    vote = Vote(bytes(32), 1, b"\x01" * 32)
    remember(seed, vote)
    remember(seed, vote)
    assert note_path(seed).read_text() == vote.line()
    note_path(seed).write_text(vote.line()[:-1])
    from ledger.errors import ConfigError

    with pytest.raises(ConfigError, match="damaged"):
        remember(seed, Vote(bytes(32), 2, b"\x02" * 32))


def test_a_foreign_admin_key_signs_nothing(
    sites: list[Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna = sites[0]
    init(tmp_path / "emma", "Emma")
    file = tmp_path / "r.update"
    config = ["--config", str(anna.config)]
    assert call(["roster", "propose", "remove", "Dora", "--out", str(file), *config]) == 0
    capsys.readouterr()
    seed = str(tmp_path / "emma" / "keys" / "admin.seed")
    assert call(["roster", "sign", str(file), "--admin-seed", seed, *config]) == 2
    assert_one_line_error(capsys.readouterr().err, "no member's admin key")


def test_a_removal_signed_on_an_offline_machine_is_verified_by_an_auditor(
    sites: list[Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, berta, carla, dora = sites
    config = ["--config", str(anna.config)]
    bundle, file = tmp_path / "stick", tmp_path / "r.update"
    assert call(["export", str(bundle), *config]) == 0
    assert call(["roster", "propose", "remove", "Dora", "--out", str(file), *config]) == 0
    for site in (anna, berta, carla):
        command = ["roster", "sign", str(file), "--admin-seed", str(admin(site))]
        assert call([*command, "--bundle", str(bundle)]) == 0
    assert call(["roster", "submit", str(file), *config]) == 0
    assert call(["export", str(tmp_path / "after"), *config]) == 0
    charter = load_charter(anna.charter.read_bytes())
    report = verify_bundles([tmp_path / "after"], charter.source_bytes, charter.digest_hex)
    assert report.verdict == "VERIFIED", report.to_text()
    assert report.members == 3
    capsys.readouterr()
    assert call(["roster", "show", "--json", *config]) == 0
    versions = json.loads(capsys.readouterr().out)["versions"]
    assert versions[1]["members"] == ["Anna", "Berta", "Carla"]
    assert versions[1]["signed_by"] == ["Anna", "Berta", "Carla"]
    # The removed site says so, in one line.
    (dora.directory / "ledger.db").write_bytes((anna.directory / "ledger.db").read_bytes())
    identity = load_identity(SitePaths(dora.directory))
    with Store.open(anna.directory / "ledger.db", read_only=True) as store:
        roster = load_roster(store, charter)
    with pytest.raises(Exception, match="was removed from the federation by roster 1"):
        own_place(roster, identity)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_rotated_hospital_finds_its_new_place(
    sites: list[Site], tmp_path: Path, *, fresh: bool
) -> None:
    anna, berta, carla, dora = sites
    proposer = anna if fresh else dora
    config = ["--config", str(proposer.config)]
    file = tmp_path / "r.update"
    member = ["--member", str(init(tmp_path / "dora2", "Dora"))] if fresh else []
    propose = ["roster", "propose", "rotate", "Dora", *member, "--out", str(file), *config]
    assert call(propose) == 0
    sign(file, anna, berta, carla)
    assert call(["roster", "submit", str(file), "--config", str(anna.config)]) == 0
    with Store.open(anna.directory / "ledger.db", read_only=True) as store:
        roster = load_roster(store, load_charter(anna.charter.read_bytes()))
    paths = SitePaths(tmp_path / "dora2" if fresh else dora.directory)
    place = own_place(roster, load_identity(paths))
    assert (place.author, place.epoch) == (3, 1)
    assert isinstance(place.signer, Signer)
    assert place.signer.public_key == roster.key(3, 1)
    if fresh:
        with pytest.raises(Exception, match="not in the charter"):
            own_place(roster, load_identity(SitePaths(dora.directory)))


def test_what_is_no_update_or_impossible_is_one_line(
    sites: list[Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna = sites[0]
    config = ["--config", str(anna.config)]
    (tmp_path / "junk").write_bytes(b"\x93junk")
    for arguments, word in (
        (["propose", "remove", "Nobody"], "members are Anna"),
        (["propose", "remove", "Dora", "--kept", "9"], "holds 1 records"),
        (["propose", "rotate", "Dora"], "--member"),
        (["propose", "add", "--member", str(anna.directory / "member.toml")], "E_ROSTER_DUP"),
        (["show", str(tmp_path / "junk")], "no roster update"),
        (["submit", str(tmp_path / "gone")], "does not exist"),
    ):
        capsys.readouterr()
        assert call(["roster", *arguments, *config]) == 2
        assert_one_line_error(capsys.readouterr().err, word)


def test_the_roster_commands_start_without_torch() -> None:
    done = run_command("roster", "propose", "--help")
    assert done.returncode == 0


def test_a_newcomer_learns_every_update_from_a_bundle(
    sites: list[Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, berta, carla, _ = sites
    config = ["--config", str(anna.config)]
    block = init(tmp_path / "emma", "Emma")
    for number, change in enumerate((["remove", "Dora"], ["add", "--member", str(block)])):
        file = tmp_path / f"{number}.update"
        assert call(["roster", "propose", *change, "--out", str(file), *config]) == 0
        for site in (anna, berta, carla):
            command = ["roster", "sign", str(file), "--admin-seed", str(admin(site))]
            assert call([*command, *config]) == 0
        assert call(["roster", "submit", str(file), *config]) == 0
    assert call(["export", str(tmp_path / "bundle"), *config]) == 0
    emma = tmp_path / "emma"
    (emma / "charter.toml").write_bytes(anna.charter.read_bytes())
    site = (emma / "site.toml").read_text()
    (emma / "site.toml").write_text(site.replace("# source =", "source ="))
    capsys.readouterr()
    submit = ["roster", "submit", str(tmp_path / "bundle"), "--config", str(emma / "site.toml")]
    assert call(submit) == 0, capsys.readouterr().err
    assert "roster 2: Anna, Berta, Carla, Emma" in capsys.readouterr().out
    with Store.open(emma / "ledger.db", read_only=True) as store:
        roster = load_roster(store, load_charter(anna.charter.read_bytes()))
    assert own_place(roster, load_identity(SitePaths(emma))).author == 4
