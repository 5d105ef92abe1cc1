"""Disks that are full, read-only or forbidden: one line that names the file, and nothing is lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ledger_factory import Federation

from ledger.errors import StoreError
from ledger.record import Record, Verified
from ledger.store import Store

HERE = Path(__file__).parent
DISK_KB = 400
SECONDS_MAX = 60


def run(prefix: Sequence[str], *arguments: object) -> list[tuple[str, str]]:
    root = HERE.parent.parent
    done = subprocess.run(
        [*prefix, sys.executable, HERE / "store_on_disk.py", *map(str, arguments)],
        capture_output=True, text=True, cwd=root, timeout=SECONDS_MAX, check=False,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [(word, text) for word, _, text in (x.partition(" ") for x in done.stdout.splitlines())]


def on_a_small_disk(directory: Path) -> list[str]:
    """Return the words that start a command in a namespace of its own, a small disk mounted there."""
    mount = f'mount -t tmpfs -o size={DISK_KB}k tmpfs "{directory}" && exec "$@"'
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    prefix = ["unshare", "--mount", *as_root, "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    return prefix


def bound_by_permissions() -> list[str]:
    """Return the words that start a command for which file modes hold, even if we are root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed, and root may write everywhere")
    prefix = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not give up its capabilities")
    return prefix


def first_record() -> list[Verified[Record]]:
    return [Federation(1).open(0)]


def assert_one_line(text: str, *words: str) -> None:
    for word in words:
        assert word in text


@pytest.mark.parametrize("filler_kb", [100, 200, 300, 330, 345, 360, 375, 390, 396])
def test_a_disk_that_fills_up_is_said_in_one_line_and_loses_nothing(
    tmp_path: Path, filler_kb: int
) -> None:
    """At any point: in the middle of appending, while the files are made, before the first byte."""
    said = dict(run(on_a_small_disk(tmp_path), "full", tmp_path, filler_kb * 1024))
    assert_one_line(said["said"], "ledger.db")
    acknowledged, found = int(said["acknowledged"]), int(said["found"])
    assert found >= acknowledged
    assert found % 5 == 0, "whole groups only"
    assert int(said["then"]) == found + 5, "with room again it goes on"
    assert said.get("still-full", said["found"]) == said["found"]


def test_on_a_read_only_disk_nobody_writes_and_everybody_reads(tmp_path: Path) -> None:
    clean_writer, clean_reader, writer, reader = run(
        on_a_small_disk(tmp_path), "read-only", tmp_path
    )
    assert clean_writer[0] == writer[0] == "writer"
    assert_one_line(clean_writer[1], "ledger.db", "Read-only file system")
    assert clean_reader == ("read", "5")
    # A log file waits to be read: passing over it would lose records without a word.
    assert reader in {("read", "10"), ("reader", reader[1])}


@pytest.mark.parametrize("what", ["directory", "file", "lock file"])
def test_what_may_not_be_written_is_said_in_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "site" / "ledger.db"
    path.parent.mkdir()
    with Store.open(path) as store:
        store.append(first_record())
    victim = {"directory": path.parent, "file": path, "lock file": Path(f"{path}.lock")}[what]
    victim.chmod(0o500 if what == "directory" else 0o400)
    try:
        word, text = run(bound_by_permissions(), "forbidden", path)[0]
    finally:
        victim.chmod(0o700)
    assert word == "writer"
    assert_one_line(text, "ledger.db")


def test_what_may_not_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Store.open(path) as store:
        store.append(first_record())
    path.chmod(0)
    said = run(bound_by_permissions(), "forbidden", path)
    assert [word for word, _ in said] == ["writer", "reader"]
    for _, text in said:
        assert_one_line(text, str(path))


def test_a_file_of_length_zero_is_a_new_store_to_a_writer_and_none_to_a_reader(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    with (
        pytest.raises(StoreError, match=r"there is no ledger here"),
        Store.open(path, read_only=True),
    ):
        pass
    with Store.open(path) as store:
        store.append(first_record())
    os.truncate(path, 0)
    for read_only in (True, False):
        with (
            pytest.raises(StoreError, match=r"there is no ledger|holds 0 of the 1 records"),
            Store.open(path, read_only=read_only),
        ):
            pass


@pytest.mark.parametrize("read_only", [True, False])
def test_a_directory_in_its_place_is_refused(tmp_path: Path, *, read_only: bool) -> None:
    path = tmp_path / "ledger.db"
    path.mkdir()
    with pytest.raises(StoreError, match=r"ledger\.db"), Store.open(path, read_only=read_only):
        pass
