"""The doctor finds before the first round what would stop it, one line each, with the remedy."""

import json
import socket
from pathlib import Path

import pytest
from site_factory import Site, make_federation
from test_cli_commands import (
    empty_data,
    foreign_key,
    lose_key,
    no_charter,
    no_data,
    one_class,
    open_key,
    other_charter,
    spoil_key,
    unknown_label_value,
    words_for_numbers,
    wrong_column,
    wrong_label,
)

from ledger.store import Store
from node.cli import call
from node.doctor_pairs import spelt


def examine(
    site: Site, capsys: pytest.CaptureFixture[str], *extra: str
) -> tuple[int, list[dict[str, str]]]:
    capsys.readouterr()
    status = call(["doctor", "--offline", "--json", "--config", str(site.config), *extra])
    return status, json.loads(capsys.readouterr().out)["findings"]


def levels(findings: list[dict[str, str]]) -> dict[str, str]:
    """The worst level of each check."""
    order = ("ok", "warn", "fail")
    worst: dict[str, str] = {}
    for one in findings:
        worst[one["check"]] = max(worst.get(one["check"], "ok"), one["level"], key=order.index)
    return worst


def test_a_healthy_site_passes_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    status, findings = examine(site, capsys)
    assert status == 0
    assert levels(findings) == {
        "versions": "ok", "configuration": "ok", "keys": "ok", "admin key": "warn",
        "listen": "ok", "charter": "warn", "membership": "ok", "disk": "ok", "data": "ok",
        "classes": "ok", "model": "ok",
    }  # fmt: skip


def test_another_hospitals_keys_are_told_by_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, berta = make_federation(tmp_path, ["Anna", "Berta"])
    anna.seed.write_bytes(berta.seed.read_bytes())
    _, findings = examine(anna, capsys)
    (found,) = (one for one in findings if (one["check"], one["level"]) == ("membership", "fail"))
    assert found["what"].startswith('site.toml says name = "Anna", and node.seed holds the keys of')
    assert "put this site's own node.seed back" in found["what"]


def test_another_hospitals_keys_are_refused_at_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is signed with them, and the right seed then starts as if nothing had been."""
    anna, berta = make_federation(tmp_path, ["Anna", "Berta"])
    own = anna.seed.read_bytes()
    anna.seed.write_bytes(berta.seed.read_bytes())
    assert call(["run", "--config", str(anna.config)]) == 2
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("swarm-node:"))
    assert 'node.seed holds the keys of "Berta"' in line
    anna.seed.write_bytes(own)
    with Store.open(anna.directory / "ledger.db") as store:
        assert store.heads() == {}


def test_a_name_spelt_otherwise_is_the_same_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    site.edit('name = "Anna"', 'name = "ANNA"')
    status, findings = examine(site, capsys)
    assert (status, levels(findings)["membership"]) == (0, "ok")


@pytest.mark.parametrize(
    ("skew_s", "words"),
    [(31.4, "31 s"), (720.0, "12 min"), (9 * 3600.0, "9 h"), (864_000.0, "10 days")],
)
def test_a_clock_that_is_off_is_told_in_the_unit_people_use(skew_s: float, words: str) -> None:
    assert spelt(skew_s) == words


def test_advice_that_is_followed_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    (site.directory / "keys" / "admin.seed").unlink()
    capsys.readouterr()
    assert call(["charter", "digest", str(site.charter)]) == 0
    grouped = " ".join(capsys.readouterr().out.split())
    site.edit('# charter_digest = ""', f'charter_digest = "{grouped}"')
    status, findings = examine(site, capsys)
    assert status == 0
    assert set(levels(findings).values()) == {"ok"}


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (spoil_key, "keys"),
        (open_key, "keys"),
        (lose_key, "keys"),
        (foreign_key, "membership"),
        (other_charter, "charter"),
        (no_charter, "charter"),
        (no_data, "data"),
        (empty_data, "data"),
        (wrong_column, "data"),
        (wrong_label, "data"),
        (unknown_label_value, "data"),
        (one_class, "data"),
        (words_for_numbers, "data"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_fault_fails_its_own_check_and_no_other(
    tmp_path: Path, spoil: object, check: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    assert callable(spoil)
    spoil(site)
    status, findings = examine(site, capsys)
    assert status == 1
    assert {one["check"] for one in findings if one["level"] == "fail"} == {check}
    text = json.dumps(findings)
    assert "SECRET" not in text
    assert "\\n" not in text


def test_a_broken_configuration_is_a_finding_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    site.edit("threads = 1", "treads = 1")
    status, findings = examine(site, capsys)
    assert status == 1
    assert "did you mean run.threads?" in findings[-1]["what"]


def test_a_port_that_another_program_holds_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    with socket.create_server(("127.0.0.1", site.port)):
        status, findings = examine(site, capsys)
    assert status == 1
    assert [one["check"] for one in findings if one["level"] == "fail"] == ["listen"]


def test_a_column_without_values_is_a_finding_until_the_site_says_that_it_never_measures_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    lines = [line.split(",") for line in site.patients.read_text().splitlines()]
    emptied = [lines[0], *([a, "NaN", *rest] for a, _, *rest in lines[1:])]
    site.patients.write_text("\n".join(",".join(line) for line in emptied))
    status, findings = examine(site, capsys)
    assert status == 1
    assert any(one["level"] == "fail" and "absent" in str(one) for one in findings)
    settings = site.config.read_text().replace("absent = []", 'absent = ["crp"]')
    site.config.write_text(settings)
    status, findings = examine(site, capsys)
    assert status == 0
    assert any(one["level"] == "warn" and '"crp"' in one["what"] for one in findings)


def test_a_regressions_label_in_a_small_unit_is_told_before_training_diverges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "costs.csv"
    rows = [f"{age},{100 * age}" for age in range(40, 90)]
    table.write_text("age,cost\n" + "\n".join(rows) + "\n")
    site = Site(tmp_path / "anna", 0)
    init = ["init", str(site.directory), "--name", "Anna", "--data", str(table)]
    assert call([*init, "--listen", "/ip4/127.0.0.1/tcp/4001"]) == 0
    new = ["charter", "new", str(site.charter), "--federation", "costs", "--data", str(table)]
    assert call([*new, "--label", "cost", "--rounds", "1", "--set=rounds.members_min=1"]) == 0
    assert call(["charter", "add", str(site.charter), str(site.directory / "member.toml")]) == 0
    status, findings = examine(site, capsys)
    assert (status, levels(findings)["label"]) == (0, "warn")
    site.edit("# query =", 'query = "SELECT * REPLACE (cost / 10000 AS cost) FROM data" #')
    status, findings = examine(site, capsys)
    assert status == 0
    assert "label" not in levels(findings)


def test_everything_that_is_wrong_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    open_key(site)
    words_for_numbers(site)
    unknown_label_value(site)
    status, findings = examine(site, capsys)
    assert status == 1
    failed = [one["what"] for one in findings if one["level"] == "fail"]
    for word in ("chmod 600", '"age"', '"died"'):
        assert any(word in what for what in failed)


def test_members_that_do_not_run_yet_are_a_warning_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site, *_) = make_federation(tmp_path, ("Anna", "Berta", "Clara"))
    capsys.readouterr()
    assert call(["doctor", "--config", str(site.config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("Berta", "Clara"):
        (line,) = [line for line in lines if line.startswith("warn  dial") and name in line]
        assert "may not run yet" in line
    assert any(line.startswith("warn  clock: not checked") for line in lines)


def test_a_model_of_ones_own_that_fails_is_a_finding_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = "doctors_broken_model"
    settings = (f'model.name="python:{package}:Net"',)
    (site,) = make_federation(tmp_path, settings=settings)
    (site.directory / f"{package}.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, inputs, outputs):\n"
        "        super().__init__()\n        self.linear = nn.Linear(inputs, outputs)\n\n"
        "    def forward(self, x):\n        raise RuntimeError('patient 17')\n"
    )
    status, findings = examine(site, capsys)
    assert status == 1
    assert f'add "{package}" to allow' in findings[-1]["what"]
    site.edit("allow = []", f'allow = ["{package}"]')
    site.edit("python_path = []", 'python_path = ["."]')
    status, findings = examine(site, capsys)
    assert status == 1
    assert findings[-1]["check"] == "model"
    assert findings[-1]["level"] == "fail"
