"""A charter in words, with the members of now: joined, removed and rotated ones."""

import json
import sys
from pathlib import Path

import pytest

from node.charter_words import describe
from node.cli import call

sys.path.insert(0, str(Path(__file__).parent.parent / "ledger"))

from ledger_factory import Federation
from roster_factory import Living, lived, write_files


def chapter(federation: Living, heading: str) -> tuple[str, ...]:
    chapters = describe(federation.charter, federation.roster)
    return next(one.lines for one in chapters if one.heading.startswith(heading))


def test_the_members_of_now_are_described_not_the_charters() -> None:
    federation = lived()  # 4 joined, 1 has another key, 0 left
    members = chapter(federation, "Members, as roster 3 has them")
    assert [line.split("  ")[:2] for line in members] == [
        [str(index), f"Hospital {index} (hospital)"] for index in (1, 2, 3, 4)
    ]


def test_the_quorum_is_that_of_the_members_of_now() -> None:
    federation = lived()
    federation.remove(4)
    assert "n = 3, f = 0, q = 2" in chapter(federation, "Agreement")[0]
    assert any("no liar is tolerated" in line for line in chapter(federation, "Agreement"))
    assert "n = 4, f = 1, q = 3" in describe(federation.charter)[1].lines[0]


def test_who_was_removed_is_required_no_more() -> None:
    federation = Living(4)
    text = federation.charter_bytes.decode().replace(
        "rounds = 10", 'rounds = 10\nrequired = ["Hospital 0"]'
    )
    assert "the run fails without" not in str(chapter(federation, "Rounds"))
    from ledger.charter import load_charter
    from ledger.roster import Roster

    charter = load_charter(text.encode())
    assert "the run fails without Hospital 0" in str(describe(charter))
    federation.remove(0)
    gone = describe(charter, federation.roster)
    assert "the run fails without" not in str(gone)
    assert Roster.from_charter(charter).n == 4


def test_the_command_takes_them_from_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = lived()
    bundle = write_files(tmp_path / "bundle", federation.files())
    charter = str(bundle / "charter.toml")
    assert call(["charter", "show", charter, "--bundle", str(bundle), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["roster"], said["n"], said["q"]) == (3, 4, 3)
    assert said["members"] == [f"Hospital {index}" for index in (1, 2, 3, 4)]
    other = Federation(3).bundle(tmp_path / "other")
    assert call(["charter", "show", charter, "--bundle", str(other)]) == 2
    assert "is of another charter" in capsys.readouterr().err
