"""What an auditor reads first: nothing sounds better than it is, and each refusal says what to do."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_factory import Federation

from ledger import cli
from ledger.verify import verify_bundles


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.main([str(one) for one in arguments])
    return status, *capsys.readouterr()


@pytest.fixture
def federation() -> Federation:
    return Federation(3)


def test_a_bundle_without_records_is_not_verified(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = federation.bundle(tmp_path / "bundle")
    charter = ["--charter", bundle / "charter.toml"]
    digest = ["--charter-digest", federation.charter.digest_hex]
    status, out, _ = run(capsys, "verify", bundle, *charter, *digest)
    assert status == 3
    assert out.startswith("EMPTY: nothing was verified, as there is no record in what was supplied")
    assert "VERIFIED" not in out
    assert 'missing: no record of member 0 "Hospital 0"' in out
    status, out, _ = run(capsys, "verify", bundle, *charter, *digest, "--json")
    assert (status, json.loads(out)["verdict"], json.loads(out)["exit_status"]) == (3, "EMPTY", 3)


def test_the_page_of_an_empty_bundle_does_not_praise_it(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = federation.bundle(tmp_path / "bundle")
    page = tmp_path / "page.html"
    status, _, _ = run(capsys, "report", bundle, "-o", page)
    text = page.read_text()
    assert status == 3
    assert "there is no record in what was supplied, so nothing was verified" in text
    assert "Every record is signed by its author" not in text


def test_one_record_is_enough_for_a_verdict(federation: Federation, tmp_path: Path) -> None:
    federation.open(0)
    report = verify_bundles([federation.bundle(tmp_path / "bundle")])
    assert (report.verdict, report.exit_status) == ("VERIFIED", 3)


def test_an_empty_bundle_that_was_tampered_with_is_refuted(
    federation: Federation, tmp_path: Path
) -> None:
    bundle = federation.bundle(tmp_path / "bundle")
    (bundle / "logs" / "0000-0000.log").write_bytes(b"")
    report = verify_bundles([bundle])
    assert (report.verdict, report.exit_status) == ("REFUTED", 1)


def test_a_digest_of_another_charter_is_said_plainly(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation.open_all()
    bundle = federation.bundle(tmp_path / "bundle")
    other = "a1" * 32
    status, out, _ = run(
        capsys, "verify", bundle, "--charter", bundle / "charter.toml", "--charter-digest", other
    )
    assert status == 1
    said = out.splitlines()[1]
    assert f"the charter's digest is {federation.charter.digest_hex}, not the one that you" in said
    assert f"expected {other}" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "{bundle}", "--charter", "nope"], "give your copy of charter.toml"),
        (["verify", "{bundle}", "--charter", "{bundle}"], "give the charter.toml in it"),
        (["check", "{bundle}/charter.toml", "--charter", "nope"], "give your copy of charter.toml"),
        (["policy", "nope"], "give your copy of charter.toml"),
        (["verify", "nope"], "give a folder that `swarm-node export` wrote"),
        (["verify", "{bundle}/charter.toml"], "give a folder that `swarm-node export` wrote"),
        (["verify", "{bundle}/logs"], "give a folder that `swarm-node export` wrote"),
        (["show", "0/0/0", "nope"], "give a folder that `swarm-node export` wrote"),
        (["log", "nope"], "give a folder that `swarm-node export` wrote"),
        (["diff", "{bundle}", "nope"], "give a folder that `swarm-node export` wrote"),
        (["report", "nope", "-o", "x.html"], "give a folder that `swarm-node export` wrote"),
        (["reputation", "nope"], "give a folder that `swarm-node export` wrote"),
        (["prove", "nope", "--record", "0/0/0"], "give a folder that `swarm-node export` wrote"),
        (["report", "{bundle}", "-o", "{bundle}"], "name another file or folder"),
        (["prove", "{bundle}", "--record", "0/0/0", "-o", "/nowhere/p"], "name another file"),
    ],
)
def test_a_path_that_is_wrong_is_one_line_that_says_what_to_give(
    arguments: list[str],
    said: str,
    federation: Federation,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    federation.open_all()
    bundle = federation.bundle(tmp_path / "bundle")
    status, _, err = run(capsys, *(one.format(bundle=bundle) for one in arguments))
    lines = [one for one in err.splitlines() if "evidence is missing" not in one]
    assert status == 2
    assert len(lines) == 1
    assert said in lines[0]


def commands() -> Iterator[tuple[str, Any]]:
    parser = cli._parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from sorted(action.choices.items())


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_has_an_example_json_and_its_statuses(name: str) -> None:
    parser = dict(commands())[name]
    text = parser.format_help()
    assert f"  swarm-audit {name} " in text, "no example of this command"
    assert "--json" in text
    assert "exit status:" in text


def test_bundles_of_two_federations_are_not_called_forked(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Federation(4)
    for one in (federation, other):
        one.open_all()
    paths = [one.bundle(tmp_path / str(at)) for at, one in enumerate((federation, other))]
    status, out, _ = run(capsys, "diff", *paths)
    assert status == 1
    assert "another charter: A " in out
    assert "log 0/0: other records at seq 0" in out
    assert "FORK" not in out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("swarm-audit ")


def test_an_unsigned_proof_says_what_to_give(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation.open_all()
    bundle, proof = federation.bundle(tmp_path / "bundle"), tmp_path / "p"
    status, _, err = run(capsys, "prove", bundle, "--record", "0/0/0", "-o", proof)
    assert status == 3
    assert "give a signed one (--checkpoint BUNDLE/checkpoints/AAAA-EEEE.txt)" in err
    status, _, err = run(capsys, "check", proof, "--charter", bundle / "charter.toml")
    assert (status, "nobody has signed it" in err) == (1, True)


@pytest.mark.parametrize("program", ["node.cli", "scenarios.cli"])
def test_an_auditors_install_says_what_the_other_programs_need(program: str) -> None:
    """Typer is the first thing that the base install lacks."""
    code = f"import sys; sys.modules['typer'] = None; import {program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].endswith("pip install 'swarm-node[node]'")
    assert len(done.stderr.splitlines()) == 1
