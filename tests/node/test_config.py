"""A mistake in site.toml is one line that names the key; what is in force can be seen."""

import os
import tomllib
from pathlib import Path

import pytest
from site_factory import make_federation

from ledger.errors import ConfigError
from node.config import (
    SOCKET_PATH_BYTES_MAX,
    RunConfig,
    SitePaths,
    effective,
    load_charter_file,
    load_site,
    load_site_charter,
    socket_path,
    template,
)
from node.knobs import BY_KEY, KNOBS
from tests.learning import make_charter

MINIMAL = 'name = "Anna"\n[data]\nsource = "patients.csv"\n'


def write(directory: Path, text: str) -> Path:
    path = directory / "site.toml"
    path.write_text(text)
    return path


def test_a_minimal_file_gets_every_default(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, MINIMAL))
    assert site.name == "Anna"
    assert site.run == RunConfig()
    assert site.directory == tmp_path
    assert site.charter_path == tmp_path / "charter.toml"
    assert site.charter_digest is None
    assert site.data.source == "patients.csv"
    assert load_site(tmp_path) == site


def test_the_defaults_of_the_table_and_of_the_class_are_the_same() -> None:
    fields = {f"run.{name}": getattr(RunConfig(), name) for name in RunConfig.__dataclass_fields__}
    assert fields == {knob.key: knob.default for knob in KNOBS if knob.table == "run"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL.replace("source", "sorce"), ("data.sorce", "did you mean data.source?")),
        (MINIMAL + "[rum]\nthreads = 1\n", ("[rum]", "did you mean run?")),
        (MINIMAL + "[run]\nlinger = 3\n", ("run.linger", "did you mean run.linger_s?")),
        (MINIMAL + "[run]\nthreads = 0\n", ("run.threads", "whole number from 1")),
        (MINIMAL + "[run]\nthreads = true\n", ("run.threads", "whole number")),
        (MINIMAL + '[run]\nlinger_s = "10 s"\n', ("run.linger_s", "seconds")),
        (MINIMAL + "[run]\nsync_interval_s = nan\n", ("run.sync_interval_s", "need a number")),
        (MINIMAL + '[run]\nlog_level = "loud"\n', ("run.log_level", '"warning"')),
        (MINIMAL.replace('"Anna"', '"Anna\\n"'), ("name", "need text")),
        ("run = 3\n" + MINIMAL, ("run is a table",)),
        ('listen = "/ip4/0.0.0.0/tcp/1"\n' + MINIMAL, ("listen", "need a list")),
        ('listen = ["0.0.0.0:4001"]\n' + MINIMAL, ("listen", "/tcp/")),
        ('listen = ["/ip4/0.0.0.0/tcp/99999"]\n' + MINIMAL, ("listen", "65535")),
        ('listen = ["/dns4/anna/tcp/4001"]\n' + MINIMAL, ("listen", "IP address")),
        ('charter_digest = "abc"\n' + MINIMAL, ("charter_digest", "64 hexadecimal")),
        ('allow = ["a", "a"]\n' + MINIMAL, ("allow", "twice")),
        (MINIMAL + "[network]\ninbound = 0\n", ("network.inbound", "true or false")),
        (MINIMAL + "[network]\nforward_mb_s = -1\n", ("network.forward_mb_s", "MB/s")),
        (MINIMAL + '[network]\naddresses = ["/ip4/0.0.0.0/tcp/1"]\n', ("others could not dial",)),
        (MINIMAL + '[network]\naddresses = ["/dns4/127.1/tcp/1"]\n', ("no host name",)),
        (MINIMAL + '[network]\naddresses = ["anna:4001"]\n', ("network.addresses", "/tcp/")),
        (
            MINIMAL + '[network]\ninbound = false\naddresses = ["/dns4/a.example/tcp/1"]\n',
            ("network.addresses", "listens nowhere"),
        ),
        ('[data]\nsource = "p.csv"\n', ("name is missing",)),
        ('name = "Anna"\n', ("site.toml", "data.source")),
        ("name = \n", ("not TOML", "line 1")),
    ],
)
def test_each_mistake_is_one_line_that_names_the_file_and_the_key(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_site(write(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert "site.toml" in message
    for word in words:
        assert word in message


def test_a_file_that_is_not_text_or_not_there_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_site(tmp_path)
    with pytest.raises(ConfigError, match="does not exist: name a site's folder with --config"):
        load_site(tmp_path / "other.toml")


def test_the_command_line_wins_and_needs_no_quotes_for_text(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "[run]\nthreads = 2\n")
    site = load_site(
        path, {"run.threads": "3", "data.source": "b.csv", "run.linger_s": "5", "listen": "[]"}
    )
    assert (site.run.threads, site.data.source, site.run.linger_s) == (3, "b.csv", 5.0)
    assert site.listen == ()
    with pytest.raises(ConfigError, match=r"--set run\.treads: .*did you mean run\.threads"):
        load_site(path, {"run.treads": "3"})
    with pytest.raises(ConfigError, match=r"--set: run\.threads: need a whole number"):
        load_site(path, {"run.threads": "many"})


def test_a_site_that_accepts_no_connection_listens_nowhere(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, MINIMAL + "[network]\ninbound = false\n"))
    assert (site.listen, site.network.inbound) == ((), False)
    text = effective(site)
    assert tomllib.loads(text)["network"]["inbound"] is False
    assert "inbound = false  # site.toml" in text


def test_effective_is_valid_toml_that_says_where_each_value_came_from(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    text = effective(load_site(path, {"run.threads": "3"}))
    assert tomllib.loads(text)["run"]["threads"] == 3
    assert "threads = 3  # command line" in text
    assert 'source = "patients.csv"  # site.toml' in text
    assert "linger_s = 600.0  # default" in text
    again = write(tmp_path, text)
    assert load_site(again) == load_site(write(tmp_path, MINIMAL), {"run.threads": "3"})


def test_the_written_file_explains_every_knob_and_loads(tmp_path: Path) -> None:
    text = template({"name": 'Ann "A" Ä', "data.source": "p.csv"})
    for knob in KNOBS:
        assert f"# {knob.when}" in text
    site = load_site(write(tmp_path, text))
    assert site.name == 'Ann "A" Ä'
    examples = [knob.example for knob in KNOBS if knob.example]
    for knob in KNOBS:
        if knob.example:
            BY_KEY[knob.key].check(tomllib.loads(f"x = {knob.example}")["x"])
    assert len(examples) == sum(knob.default is None and not knob.required for knob in KNOBS)


def test_a_multi_line_query_is_fine(tmp_path: Path) -> None:
    text = 'name = "Anna"\n[data]\nquery = """\nSELECT *\nFROM data\n"""\nsource = "p.csv"\n'
    site = load_site(write(tmp_path, text))
    assert "\nFROM" in str(site.data.query)
    assert load_site(write(tmp_path, effective(site))).data == site.data


def test_the_socket_lies_in_the_directory_unless_its_path_is_too_long(tmp_path: Path) -> None:
    assert SitePaths(tmp_path).socket == tmp_path / "node.sock"
    long = tmp_path / ("deep/" * 40)
    short = socket_path(long)
    assert len(os.fsencode(short)) <= SOCKET_PATH_BYTES_MAX
    assert short == SitePaths(long).socket
    assert short != socket_path(long / "other")


def test_a_relative_and_an_absolute_path_to_a_site_give_one_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_site(Path("site.toml")).paths.socket == load_site(tmp_path).paths.socket


def test_another_charter_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (site,) = make_federation(tmp_path)
    config = load_site(site.config)
    digest = load_site_charter(config).digest_hex
    grouped = " ".join(digest[at : at + 4].upper() for at in range(0, 64, 4))
    pinned = load_site(site.config, {"charter_digest": grouped})
    assert load_site_charter(pinned).digest_hex == digest
    site.charter.write_text(site.charter.read_text() + "# one more line\n")
    with pytest.raises(ConfigError, match=r"charter.toml: digest is .* pins"):
        load_site_charter(pinned)


def test_a_charter_whose_choices_do_not_go_together_is_one_line_that_names_the_file(
    tmp_path: Path,
) -> None:
    charter = make_charter(aggregation='strategy = "ifca"\nrule = "median"')
    path = tmp_path / "agreed.toml"
    path.write_bytes(charter.source_bytes)
    with pytest.raises(ConfigError, match=r'^agreed\.toml: strategy = "ifca" sends') as caught:
        load_charter_file(path, complete=False)
    assert "\n" not in str(caught.value)
