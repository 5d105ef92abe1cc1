"""What an operator types does what the help says, and exits as documented."""

import json
import re
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from site_factory import (
    Site,
    assert_one_line_error,
    make_federation,
    run_command,
    write_patients,
)

from ledger.charter import load_charter
from node.cli import call

COMMANDS = [
    [], ["init"], ["charter"], ["charter", "new"], ["charter", "add"], ["charter", "show"],
    ["charter", "digest"], ["run"], ["status"], ["doctor"], ["config"], ["export"], ["model"],
    ["model", "export"], ["model", "evaluate"], ["roster"], ["roster", "propose"],
    ["roster", "propose", "add"], ["roster", "propose", "remove"], ["roster", "propose", "rotate"],
    ["roster", "sign"], ["roster", "submit"], ["roster", "show"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: swarm-node" in shown
    if command not in (["charter"], ["model"], ["roster"], ["roster", "propose"]):
        assert re.search(r"^ +swarm-node " + " ".join(command), shown, re.MULTILINE)


def test_help_starts_without_torch_libp2p_duckdb_or_numpy() -> None:
    script = (
        "import sys; from node.cli import call; call(['--help']);"
        "print(sorted({'torch', 'libp2p', 'duckdb', 'numpy', 'sklearn', 'trio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")


def test_help_comes_within_half_a_second() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        assert run_command("--help").returncode == 0
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) <= 0.5


def test_wrong_usage_is_one_line_and_status_2() -> None:
    for arguments in (
        ["run", "--nope"],
        ["fly"],
        ["init"],
        ["run", "--linger", "soon"],
        ["export"],
    ):
        done = run_command(*arguments)
        assert done.returncode == 2
        assert_one_line_error(done.stderr, "--help")


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([]) == 2
    assert "Commands:" in capsys.readouterr().out
    assert call(["--version"]) == 0
    assert capsys.readouterr().out.startswith("swarm-node ")


def test_init_makes_secret_keys_a_loadable_site_and_a_block_to_send(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "anna"
    address = "/dns4/swarm.anna.example/tcp/4001"
    assert call(["init", str(directory), "--name", "St. Anna", "--address", address]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == (directory / "member.toml").read_text().strip()
    (member,) = tomllib.loads(shown.out)["members"]
    assert (member["name"], member["addresses"]) == ("St. Anna", [address])
    assert "offline" in shown.err
    for name in ("node.seed", "admin.seed"):
        assert stat.S_IMODE((directory / "keys" / name).stat().st_mode) == 0o600
        assert (directory / "keys" / name).read_bytes().hex() not in shown.out + shown.err
    assert tomllib.loads((directory / "site.toml").read_text())["name"] == "St. Anna"


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["init", str(tmp_path / "a"), "--name", "A"]
    assert call(arguments) == 0
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    capsys.readouterr()
    assert call(arguments) == 2
    assert_one_line_error(capsys.readouterr().err, "exists")
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before


def test_a_bad_name_or_address_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = str(tmp_path / "a")
    for arguments, word in (
        (["--name", " "], "--name"),
        (["--name", "A", "--listen", "4001"], "--listen"),
        (["--name", "A", "--address", "anna.example:4001"], "--address"),
        (["--name", "A", "--address", "/ip4/0.0.0.0/tcp/4001"], "leads nowhere"),
        (["--name", "A", "--address", "/ip4/192.0.2.7/tcp/0"], "leads nowhere"),
    ):
        assert call(["init", directory, *arguments]) == 2
        assert_one_line_error(capsys.readouterr().err, word)
    assert not (tmp_path / "a").exists()


def test_init_says_that_the_table_is_not_there_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "patients.csv"
    assert call(["init", str(tmp_path / "a"), "--name", "A", "--data", str(table)]) == 0
    assert f"There is no {table.resolve()} yet" in capsys.readouterr().err
    write_patients(table)
    assert call(["init", str(tmp_path / "b"), "--name", "B", "--data", str(table)]) == 0
    assert "There is no" not in capsys.readouterr().err


def test_init_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["init", str(tmp_path / "a"), "--name", "A", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["site"]).is_file()
    assert tomllib.loads(made["member_block"])["members"][0]["name"] == "A"


def test_charter_show_and_digest_for_people_and_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site, *_) = make_federation(tmp_path, ("Anna", "Berta", "Clara"))
    digest = load_charter(site.charter.read_bytes()).digest_hex
    capsys.readouterr()
    assert call(["charter", "show", str(site.charter)]) == 0
    words = capsys.readouterr().out
    for expected in ("Anna", "n = 3, f = 0, q = 2", "no liar", "parameters", digest):
        assert expected in words
    assert call(["charter", "show", str(site.charter), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["n"], shown["f"], shown["q"], shown["digest"]) == (3, 0, 2, digest)
    assert call(["charter", "digest", str(site.charter)]) == 0
    assert "".join(capsys.readouterr().out.split()) == digest
    assert call(["charter", "digest", str(site.charter), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest


def test_charter_new_warns_that_names_come_from_patients_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_patients(tmp_path / "p.csv")
    file = tmp_path / "charter.toml"
    arguments = ["charter", "new", str(file), "--federation", "f", "--label", "died"]
    arguments += ["--data", str(data), "--rounds", "3"]
    assert call([*arguments, "--model", "mlp", "--model-arg", "hidden=[8, 4]"]) == 0
    assert "Review it before sending" in capsys.readouterr().err
    charter = load_charter(file.read_bytes(), complete=False)
    assert charter.model.arguments["hidden"] == (8, 4)
    assert charter.schema.features[3].categories == ("current", "ex", "never")
    assert call(arguments) == 2
    assert_one_line_error(capsys.readouterr().err, "exists")


def test_charter_new_works_without_a_table(tmp_path: Path) -> None:
    file = tmp_path / "charter.toml"
    arguments = ["charter", "new", str(file), "--federation", "skin", "--label", "lesion"]
    arguments += ["--head", "binary", "--set", 'data.classes=["benign", "malignant"]']
    arguments += ["--model", "python:ours:Net", "--rounds", "3"]
    assert call(arguments) == 0
    assert load_charter(file.read_bytes(), complete=False).schema.classes == ("benign", "malignant")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "dead"], ("dead", "missing")),
        (["--label", "died", "--head", "multiclass"], ("died",)),
        (["--label", "died", "--rounds", "0"], ("rounds",)),
        (["--label", "died", "--model-arg", "hidden"], ("--model-arg", "key=value")),
        (["--label", "died", "--set", "training.optimizer=sgd"], ("optimizer",)),
        (["--label", "died", "--data", "nowhere.csv"], ("nowhere.csv",)),
        (["--label", "died", "--group", "nobody"], ('group column "nobody"',)),
        (["--label", "died", "--head", "binry"], ("binry", "multiclass")),
        (["--label", "died", "--model", "forest"], ("forest", "logistic")),
        (["--label", "died", "--model", "python:ours"], ("python:package.module:name",)),
        (["--label", "died", "--model", "mlp", "--model-arg", "hiden=[3]"], ("hiden", "hidden")),
        (["--label", "died", "--model", "mlp", "--model-arg", "dropout=2"], ("dropout", "below 1")),
    ],
)
def test_a_charter_that_cannot_be_is_one_line_and_no_file(
    tmp_path: Path, arguments: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "charter.toml"
    data = write_patients(tmp_path / "p.csv")
    base = ["charter", "new", str(file), "--federation", "f", "--rounds", "3"]
    base += [] if "--data" in arguments else ["--data", str(data)]
    assert call([*base, *arguments]) == 2
    assert_one_line_error(capsys.readouterr().err, *words)
    assert not file.exists()


def test_config_shows_what_is_in_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site,) = make_federation(tmp_path)
    capsys.readouterr()
    arguments = ["config", "--effective", "--config", str(site.config), "--set", "run.threads=2"]
    assert call(arguments) == 0
    assert "threads = 2  # command line" in capsys.readouterr().out
    assert call([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["run.threads"] == {"value": 2, "origin": "command line"}
    assert call([*arguments, "--set", "run.threads"]) == 2


def test_status_before_the_first_run_names_every_member(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site, *_) = make_federation(tmp_path, ("Anna", "Berta"))
    capsys.readouterr()
    assert call(["status", str(site.directory), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["running"], shown["rounds"], shown["site"]) == (False, 1, "Anna")
    assert [(m["name"], m["registered"], m["configured"]) for m in shown["members"]] == [
        ("Anna", True, False),
        ("Berta", True, False),
    ]
    assert call(["status", "--config", str(site.config)]) == 0
    table = capsys.readouterr().out
    assert "not running" in table
    assert "Anna (this site)" in table


@pytest.mark.parametrize("command", [["export", "bundle"], ["model", "export", "m.safetensors"]])
def test_before_the_first_run_there_is_nothing_to_export(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    capsys.readouterr()
    assert call([*command, "--config", str(site.config)]) == 2
    assert_one_line_error(capsys.readouterr().err, "has not run yet")


def spoil_key(site: Site) -> None:
    site.seed.write_bytes(b"short")


def open_key(site: Site) -> None:
    site.seed.chmod(0o644)


def lose_key(site: Site) -> None:
    site.seed.unlink()


def foreign_key(site: Site) -> None:
    site.seed.write_bytes(b"k" * 32)


def other_charter(site: Site) -> None:
    site.edit('# charter_digest = ""', f'charter_digest = "{"0" * 64}"')


def no_charter(site: Site) -> None:
    site.charter.unlink()


def no_data(site: Site) -> None:
    site.patients.unlink()


def empty_data(site: Site) -> None:
    site.patients.write_text("")


def header_only(site: Site) -> None:
    site.patients.write_text("age,crp,sex,smoker,died\n")


def wrong_column(site: Site) -> None:
    site.patients.write_text(site.patients.read_text().replace("crp", "crpp"))


def wrong_label(site: Site) -> None:
    site.patients.write_text(site.patients.read_text().replace("died", "outcome"))


def unknown_label_value(site: Site) -> None:
    site.patients.write_text(site.patients.read_text().replace(",yes", ",maybe"))


def one_class(site: Site) -> None:
    site.patients.write_text(site.patients.read_text().replace(",yes", ",no"))


def words_for_numbers(site: Site) -> None:
    lines = site.patients.read_text().splitlines()
    lines[3] = "SECRET-CELL" + lines[3][lines[3].index(",") :]
    site.patients.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_key, ("node.seed", "damaged")),
        (open_key, ("chmod 600",)),
        (lose_key, ("node.seed", "does not exist")),
        (foreign_key, ("keys are not in the charter",)),
        (other_charter, ("charter_digest",)),
        (no_charter, ("charter", "does not exist")),
        (no_data, ("patients.csv",)),
        (empty_data, ("patients.csv",)),
        (header_only, ("patients.csv", "rows")),
        (wrong_column, ("patients.csv", "crpp")),
        (wrong_label, ("patients.csv", "column")),
        (unknown_label_value, ("died", "outside")),
        (one_class, ("died", "one class")),
        (words_for_numbers, ("age", "number")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_run_refuses_bad_input_in_one_line_with_status_2(
    tmp_path: Path, spoil: object, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (site,) = make_federation(tmp_path)
    assert callable(spoil)
    spoil(site)
    capsys.readouterr()
    assert call(["run", "--config", str(site.config), "--linger", "0"]) == 2
    shown = capsys.readouterr()
    assert_one_line_error(shown.err, *words)
    assert "SECRET" not in shown.err + shown.out


def test_an_interrupt_is_status_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import node.status

    def interrupted(_config: object) -> object:
        raise KeyboardInterrupt

    (site,) = make_federation(tmp_path)
    monkeypatch.setattr(node.status, "read_status", interrupted)
    capsys.readouterr()
    assert call(["status", str(site.directory)]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    (site,) = make_federation(tmp_path)
    line = f"{sys.executable} -m node.cli config --config {site.config} | head -1 >/dev/null"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.stderr == ""
