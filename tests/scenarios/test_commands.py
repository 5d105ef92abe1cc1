"""Editing a site.toml as an operator would, and running commands to their end."""

import tomllib
from pathlib import Path

import pytest

from node.config import load_site
from node.setup_site import create_site
from scenarios.commands import (
    PORTS,
    ScenarioError,
    command,
    edit_site,
    free_ports,
    last_line,
    program,
    tail,
)


def test_edited_settings_are_what_the_node_then_reads(tmp_path: Path) -> None:
    site = create_site(tmp_path / "a", name="A", listen=["/ip4/127.0.0.1/tcp/4001"])
    before = site.site_file.read_text(encoding="utf-8")
    edit_site(
        site.site_file,
        {
            "data.source": "patients.csv",
            "data.query": "SELECT * FROM data WHERE name = 'x'",
            "data.split_seed": 7,
            "run.linger_s": 2.0,
            "charter_digest": "ab" * 32,
        },
    )
    config = load_site(site.site_file)
    assert config.data.source == "patients.csv"
    assert config.data.query == "SELECT * FROM data WHERE name = 'x'"
    assert (config.data.split_seed, config.run.linger_s) == (7, 2.0)
    assert config.charter_digest == "ab" * 32
    after = site.site_file.read_text(encoding="utf-8")
    comments = [line for line in before.splitlines() if line.startswith("# ") and "=" not in line]
    assert all(line in after for line in comments)
    assert len(after.splitlines()) == len(before.splitlines())


def test_a_key_without_a_line_is_added_to_its_own_table(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('name = "A"\n\n[data]\nsource = "a"\n\n[run]\nthreads = 1\n', encoding="utf-8")
    edit_site(path, {"data.label": "y", "listen": ("x",), "run.threads": 2})
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {
        "name": "A",
        "listen": ["x"],
        "data": {"source": "a", "label": "y"},
        "run": {"threads": 2},
    }
    with pytest.raises(ScenarioError, match=r"no \[other\] table"):
        edit_site(path, {"other.key": 1})


def test_ports_are_different_and_free() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    assert all(port in PORTS for port in ports)


def test_a_command_that_fails_is_told_with_its_own_last_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ScenarioError) as raised:
        command("swarm-node", "charter", "digest", missing)
    assert str(raised.value).startswith("swarm-node charter ended with exit status ")
    assert "none.toml" in str(raised.value)


def test_a_program_that_is_not_installed_is_named() -> None:
    with pytest.raises(ScenarioError, match="swarm-nothing is not installed"):
        program("swarm-nothing")


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(10_000)), encoding="utf-8")
    assert list(tail(log, 2)) == ["line 9998", "line 9999"]
    assert list(tail(tmp_path / "none", 2)) == []
    assert last_line("a\nb\n\n  \n") == "b"
    assert last_line("") == ""
