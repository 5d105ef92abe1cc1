"""Jobs on several processes: order, notes, failures, and that nothing is left behind."""

import os
import time
from pathlib import Path

import pytest

from ledger.errors import ConfigError
from scenarios.commands import ScenarioError
from scenarios.workers import Say, each

LONG_S = 60.0


def slow_first(job: int, say: Say) -> tuple[int, int]:
    time.sleep(0.3 if job == 0 else 0.0)
    say(f"at {job}")
    return job, os.getpid()


def fails_at_three(job: int, _say: Say) -> int:
    if job == 3:
        raise ConfigError("three is not wanted")
    return job


def dies_at_two(job: int, _say: Say) -> int:
    if job == 2:
        os._exit(9)
    return job


def long_job(job: Path, say: Say) -> None:
    try:
        job.write_text(str(os.getpid()), encoding="utf-8")
        say("begun")
        time.sleep(LONG_S)
    finally:
        job.with_suffix(".cleaned").touch()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_come_in_order_and_notes_at_once() -> None:
    heard: list[tuple[int, str]] = []
    results = list(each(slow_first, range(6), workers=2, note=lambda *said: heard.append(said)))
    assert [job for job, _ in results] == list(range(6))
    assert sorted(heard) == [(job, f"at {job}") for job in range(6)]
    assert heard[0][0] != 0  # the slow one spoke later, and its result still came first
    pids = {pid for _, pid in results}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert not any(is_running(pid) for pid in pids)


def test_no_jobs_need_no_process() -> None:
    assert list(each(slow_first, [], workers=2)) == []


def test_the_error_of_a_job_is_raised_here() -> None:
    with pytest.raises(ConfigError, match="three is not wanted"):
        list(each(fails_at_three, range(6), workers=2))


def test_a_process_that_dies_is_told_and_not_waited_for() -> None:
    with pytest.raises(ScenarioError, match=r"ended early \(exit status 9\)"):
        list(each(dies_at_two, range(4), workers=2))


def test_who_stops_listening_ends_the_workers_and_they_clean_up(tmp_path: Path) -> None:
    files = [tmp_path / "0", tmp_path / "1"]

    def stop(*_said: object) -> None:
        raise KeyboardInterrupt

    results = each(long_job, files, workers=2, note=stop)
    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(results)
    assert time.monotonic() - began_s < LONG_S / 2
    begun = [file for file in files if file.exists() and file.read_text(encoding="utf-8")]
    assert begun
    for file in begun:
        assert file.with_suffix(".cleaned").exists()
        assert not is_running(int(file.read_text(encoding="utf-8")))
