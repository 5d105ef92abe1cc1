"""Real processes, real sockets, a robust rule and a lossy codec: audited merge by merge, and lied to."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.commands import command, program
from tests.test_processes import Hospitals, final_status

pytestmark = pytest.mark.processes

ROUNDS = 4
KILL_ROUND = 2


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    made = Hospitals(
        tmp_path,
        rounds=ROUNDS,
        **{
            "model.name": "mlp",
            "training.local_steps": 60,
            "aggregation.rule": "trimmed_mean",
            "aggregation.neighbour_mixing": True,
            "aggregation.liars_share": 0.25,
            "aggregation.codec": "top_k_int8",
            "aggregation.keep_share": 0.1,
            "rounds.deadline_min_s": 8.0,
            "rounds.deadline_max_s": 30.0,
            "rounds.grace_s": 3.0,
        },
    )
    for site in made.job.sites:
        text = site.config.read_text()
        assert "keep_rounds = 2" in text
        site.config.write_text(text.replace("keep_rounds = 2", 'keep_rounds = "all"'))
    yield made
    made.stop()


def test_what_real_nodes_merge_an_auditor_merges_again_and_a_changed_payload_is_found(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    sites = hospitals.job.sites
    victim = sites[1]
    for site in sites:
        hospitals.start(site)
    hospitals.wait_for_round(victim, KILL_ROUND)
    hospitals.kill(victim)
    hospitals.start(victim)
    assert set(hospitals.wait_for_the_end().values()) == {0}
    statuses = [final_status(site) for site in sites]
    assert {status["agreed_round"] for status in statuses} == {ROUNDS}
    assert len({status["result_digest"] for status in statuses}) == 1
    bundle = tmp_path / "bundle"
    command("swarm-node", "export", bundle, "--payloads", "--config", sites[0].config)
    payloads = bundle.with_name("bundle.payloads")
    report = audited(bundle, hospitals.digest, payloads)
    assert report["verdict"] == "VERIFIED", report
    done = next(note for note in report["notes"] if note.startswith("step 20"))
    assert int(done.split(" merges")[0].split()[-1]) == ROUNDS + 1, done
    update = max(payloads.glob("*.9"))
    model = max(payloads.glob("*.1"), key=lambda path: path.stat().st_size)
    assert update.stat().st_size * 8 < model.stat().st_size
    lie = bytearray(update.read_bytes())
    lie[-1] ^= 1
    update.write_bytes(lie)
    report = audited(bundle, hospitals.digest, payloads)
    assert [one["code"] for one in report["findings"]] == ["E_PAYLOAD"], report


def audited(bundle: Path, digest: str, payloads: Path) -> dict[str, list[str]]:
    arguments = [
        program("swarm-audit"), "verify", str(bundle), "--charter-digest", digest,
        "--recompute", str(payloads), "--json",
    ]  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    shown: dict[str, list[str]] = json.loads(done.stdout)
    return shown
