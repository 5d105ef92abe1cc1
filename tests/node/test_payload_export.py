"""From a real run to an auditor who does every merge again. A real node, a swarm of one."""

import json
import subprocess
from pathlib import Path

import pytest
from site_factory import SWARM_NODE, make_federation, run_command

from node.cli import call


def test_exported_payloads_let_an_auditor_recompute_every_merge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path / "swarm", rounds=2)
    done = run_command("run", "--config", site.config, "--linger", "0")
    assert done.returncode == 0, done.stderr
    capsys.readouterr()
    lost = sorted((site.directory / "blobs").iterdir())
    bundle = tmp_path / "bundle"
    assert call(["export", str(bundle), "--payloads", "--json", "--config", str(site.config)]) == 0
    shown = json.loads(capsys.readouterr().out)
    payloads = Path(shown["payloads"]["directory"])
    assert payloads == tmp_path / "bundle.payloads"
    assert shown["payloads"]["absent"] == 0
    assert {path.name for path in payloads.iterdir()} <= {path.name for path in lost}
    verify = [
        str(Path(SWARM_NODE).with_name("swarm-audit")), "verify", str(bundle),
        "--charter-digest", shown["charter_digest"], "--recompute", str(payloads), "--json",
    ]  # fmt: skip
    audited = subprocess.run(verify, capture_output=True, text=True, check=False, timeout=120)
    report = json.loads(audited.stdout)
    assert report["verdict"] == "VERIFIED", audited.stdout
    assert any("3 merges were recomputed bit for bit" in note for note in report["notes"])
    again = tmp_path / "again"
    (tmp_path / "again.payloads").mkdir()
    assert call(["export", str(again), "--payloads", "--config", str(site.config)]) == 2
    assert "name a new directory" in capsys.readouterr().err
    lost[0].unlink()
    third = tmp_path / "third"
    assert call(["export", str(third), "--payloads", "--config", str(site.config)]) == 0
    assert "1 that are named are not kept here" in capsys.readouterr().err
