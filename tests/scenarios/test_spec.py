"""The catalogue is read strictly: a mistake names the scenario and the key."""

from pathlib import Path

import pytest

from ledger.errors import ConfigError
from scenarios.spec import load_spec, parse_spec, scenario_names

GOOD = """
title = "T"
about = "A"
seed = 1
rounds = 3
federation = "F"
data = "folder"
label = "y"
model = "logistic"
query = "SELECT * FROM data"

[charter]
seed = 4
[charter.training]
local_steps = 5
[charter.data]
classes = ["no", "yes"]

[site.run]
linger_s = 2.5

[[hospitals]]
folder = "a"
name = "A"
file = "a.csv"
[[hospitals]]
folder = "b"
name = "B"
file = "b.csv"

[targets]
wall_s_max = 60
"""

PATTERN = GOOD.partition("[[hospitals]]")[0].replace(
    'data = "folder"', 'data = "folder"\npattern = "hospital-*.csv"'
)


def test_the_catalogue_loads() -> None:
    known = {name: load_spec(name) for name in scenario_names()}
    four, heart, stroke = (known[name] for name in ("four-hospitals", "heart", "stroke"))
    assert {"images", "imbalance", "stragglers", "topologies"} <= known.keys()
    imbalance, stragglers = known["imbalance"], known["stragglers"]
    # What is like another has its data and settings, and targets and variants of its own.
    assert stragglers.query == stroke.query
    assert stragglers.charter["data.features"] == stroke.charter["data.features"]
    assert stragglers.charter["training.local_steps"] != stroke.charter["training.local_steps"]
    assert [variant.name for variant in stragglers.variants] == ["buffered"]
    assert (stroke.engine, stroke.seeds, stroke.external) == ("simulated", 5, "external.csv")
    assert [variant.name for variant in stroke.variants] == ["mlp"]
    sizes = [hospital.rows[1] for hospital in imbalance.hospitals if hospital.rows]
    assert max(sizes) == 94 * min(sizes)
    assert four.rounds == heart.rounds == 20
    assert len(four.hospitals) == len(heart.hospitals) == 4
    assert (four.targets.auc_over_alone_min, four.targets.auc_under_pooled_max) == (0.0, 0.01)
    assert [hospital.file for hospital in heart.hospitals] == [
        "cleveland.csv",
        "hungarian.csv",
        "switzerland.csv",
        "va.csv",
    ]


def test_nested_settings_become_dotted_keys() -> None:
    spec = parse_spec("s", GOOD)
    assert spec.charter == {
        "seed": 4,
        "training.local_steps": 5,
        "data.classes": ["no", "yes"],
    }
    assert spec.site == {"run.linger_s": 2.5}
    assert spec.targets.wall_s_max == 60.0
    assert (spec.override(seed=9).seed, spec.override(rounds=2).rounds) == (9, 2)
    assert spec.override() == spec


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "T"', 'titel = "T"', "s: title: missing"),
        ("seed = 1", "seed = 1\nspeed = 2", "s: unknown key speed"),
        ("rounds = 3", 'rounds = "3"', "s: rounds: need int, got '3'"),
        ("rounds = 3", "rounds = true", "s: rounds: need int, got True"),
        ("rounds = 3", "rounds = 0", "s: rounds: need at least 1"),
        (
            'data = "folder"',
            'data = "cloud"',
            "s: data: use breast-cancer or digits or clinics or folder",
        ),
        ('data = "folder"', 'data = "breast-cancer"', "A needs `file` exactly if"),
        ('name = "B"', 'name = "A"', "two have the same name"),
        ('folder = "b"', 'folder = "../b"', "folder '../b' needs letters"),
        ('file = "b.csv"', 'fiel = "b.csv"', "hospitals[1]: unknown key fiel"),
        ("wall_s_max = 60", "wall_s_max = 0", "targets.wall_s_max: need more than 0"),
        ("wall_s_max = 60", "wall = 60", "s: targets: unknown key wall"),
        (
            "local_steps = 5",
            "local_steps = 2020-01-01",
            "charter.training.local_steps: need a value",
        ),
        ("seed = 4", "seed 4", "s: not valid TOML"),
        ("rounds = 3", 'rounds = 3\nengine = "fast"', "s: engine: use processes or simulated"),
        ("rounds = 3", "rounds = 3\nseeds = 0", "s: seeds: need 1 to 100"),
        ("rounds = 3", "rounds = 3\npatience = -1", "s: patience: need 0 or more"),
        ("[targets]", '[[variants]]\nname = "main"\n[targets]', "two have the same name"),
        ("rounds = 3", "rounds = 3\ndeal = [3, 0]", "s: deal: need counts of rows, got 0"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as raised:
        parse_spec("s", GOOD.replace(old, new, 1))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_variant_lays_its_settings_over_the_scenarios() -> None:
    text = (
        GOOD
        + """
[[variants]]
name = "long"
rounds = 9
patience = 2
[variants.charter.training]
local_steps = 50
"""
    )
    spec = parse_spec("s", text)
    varied = spec.varied(spec.variants[0])
    assert (varied.rounds, varied.patience, varied.variants) == (9, 2, ())
    assert varied.charter == {**spec.charter, "training.local_steps": 50}
    assert varied.targets == spec.targets


def test_a_pattern_finds_hospitals_by_name_and_too_few_are_an_error(tmp_path: Path) -> None:
    spec = parse_spec("s", PATTERN)
    with pytest.raises(ConfigError, match=r"need at least 2 files hospital-\*.csv"):
        spec.found_in(tmp_path)
    for name in ("hospital-3", "hospital-1", "hospital-2"):
        (tmp_path / f"{name}.csv").touch()
    found = spec.found_in(tmp_path)
    assert [one.name for one in found.hospitals] == ["Hospital 1", "Hospital 2", "Hospital 3"]
    assert [one.name for one in found.first(2).hospitals] == ["Hospital 1", "Hospital 2"]
    with pytest.raises(ConfigError, match="s has 2 to 3"):
        found.first(4)


def test_an_unknown_scenario_lists_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r'no scenario "five"; choose from: .*four-hospitals, free-riders, '
    ):
        load_spec("five")
