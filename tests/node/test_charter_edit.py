"""A charter that the commands write is one that the ledger reads, and says why in comments."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from site_factory import make_federation

from ledger import charter as ledger_charter
from ledger.charter import load_charter
from ledger.errors import ConfigError
from node.charter_edit import (
    WHEN,
    CharterDraft,
    append_members,
    assemble,
    group_digest,
    member_block,
    parse_assignment,
)
from node.charter_words import describe, duration, parameter_count

FEATURES = [
    {"name": "age", "type": "number", "minimum": 0.0, "maximum": 120.0},
    {"name": 'odd "name" = [x]', "type": "number"},
    {"name": "sex", "type": "category", "categories": ["F", "M", "päß"]},
]


def draft(**changes: Any) -> CharterDraft:
    values: dict[str, Any] = {
        "federation": "sepsis — Süd",
        "model": "mlp",
        "model_arguments": {"hidden": [128, 64, 32], "dropout": 0.2, "batch_norm": True},
        "data": {"label": "died", "head": "binary", "classes": ["no", "yes"], "features": FEATURES},
        "rounds": 20,
        **changes,
    }
    return CharterDraft(**values)


def test_what_is_written_is_what_was_meant() -> None:
    charter = load_charter(assemble(draft()).encode(), complete=False)
    assert charter.federation == "sepsis — Süd"
    assert charter.model.arguments["hidden"] == (128, 64, 32)
    assert [feature.name for feature in charter.schema.features] == [f["name"] for f in FEATURES]
    assert charter.schema.features[0].maximum == 120
    assert charter.rounds.rounds == 20


def test_every_setting_is_written_with_when_to_change_it() -> None:
    text = assemble(draft())
    policies = {
        "training": ledger_charter.Training,
        "rounds": ledger_charter.RoundPolicy,
        "aggregation": ledger_charter.AggregationPolicy,
        "privacy": ledger_charter.PrivacyPolicy,
        "reputation": ledger_charter.ReputationPolicy,
    }
    for table, policy in policies.items():
        for knob in fields(policy):
            assert f"# {WHEN[f'{table}.{knob.name}']}\n{knob.name} = " in text


def test_settings_reach_every_table() -> None:
    settings = {
        "seed": 7,
        "training.local_steps": 5,
        "rounds.deadline_min_s": 2,
        "aggregation.share_cap": 0.5,
        "privacy.sample_count": "bucket",
        "data.missing_indicator": True,
        "model.arguments.hidden": [3],
    }
    charter = load_charter(assemble(draft(settings=settings)).encode(), complete=False)
    assert (charter.seed, charter.training.local_steps, charter.training.local_epochs) == (7, 5, 0)
    assert charter.aggregation.share_cap_micro == 500_000
    assert charter.schema.missing_indicator
    assert charter.model.arguments["hidden"] == (3,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rounds.roundz": 3}, "roundz"),
        ({"round.rounds": 3}, "no such table"),
        ({"training.learning_rate": "fast"}, "learning_rate"),
        ({"training.learning_rate": 0.1, "training.learning_rate.x": 1}, "not a table"),
        ({"members": []}, "no such table"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        assemble(draft(settings=settings))
    assert "\n" not in str(caught.value)


def test_assignments_are_toml_or_plain_text() -> None:
    assert parse_assignment("--set", "a.b=[1, 2]") == ("a.b", [1, 2])
    assert parse_assignment("--set", "a=bucket") == ("a", "bucket")
    assert parse_assignment("--set", 'a="x=y"') == ("a", "x=y")
    with pytest.raises(ConfigError, match="key=value"):
        parse_assignment("--set", "a")


def blocks(directory: Path) -> list[tuple[Path, bytes]]:
    sites = make_federation(directory, ("Anna", "Berta"))
    paths = [site.directory / "member.toml" for site in sites]
    return [(path, path.read_bytes()) for path in paths]


def test_members_are_added_in_order_and_nothing_else_moves(tmp_path: Path) -> None:
    anna, berta = blocks(tmp_path)
    empty = assemble(draft()).encode()
    one, _ = append_members(empty, [anna], file="charter.toml")
    both, charter = append_members(one.encode(), [berta], file="charter.toml")
    assert both.startswith(one)
    assert one.startswith(empty.decode().rstrip("\n"))
    assert [(m.index, m.name) for m in charter.members] == [(0, "Anna"), (1, "Berta")]
    assert load_charter(both.encode()) == charter
    assert append_members(empty, [anna, berta], file="charter.toml")[0] == both


def test_a_member_twice_a_taken_key_or_no_block_at_all_is_refused(tmp_path: Path) -> None:
    anna, berta = blocks(tmp_path)
    empty = assemble(draft()).encode()
    with pytest.raises(ConfigError, match=r"member.toml: .*Anna.*remove its old"):
        append_members(empty, [anna, anna], file="charter.toml")
    renamed = (berta[0], anna[1].replace(b"Anna", b"Someone"))
    with pytest.raises(ConfigError, match="ledger_key"):
        append_members(empty, [anna, renamed], file="charter.toml")
    misspelt = (berta[0], berta[1].replace(b"role", b"rolle"))
    with pytest.raises(ConfigError, match="rolle"):
        append_members(empty, [misspelt], file="charter.toml")
    for nothing in (b"", b"name = 'x'\n", b"members = 3\n", b"members = [3]\n", b"[[members"):
        with pytest.raises(ConfigError, match=r"member\.toml"):
            append_members(empty, [(berta[0], nothing)], file="charter.toml")


def test_a_hostile_member_block_cannot_write_another_table(tmp_path: Path) -> None:
    anna, _ = blocks(tmp_path)
    hostile = anna[1] + b'\n[rounds]\nrounds = 1\n[[data.features]]\nname = "spy"\n'
    text, charter = append_members(
        assemble(draft()).encode(), [(anna[0], hostile)], file="charter.toml"
    )
    assert charter.rounds.rounds == 20
    assert "spy" not in text
    trick = {"name": 'A"\n[rounds]\nrounds = 1', "ledger_key": "00"}
    assert member_block(trick).count("\n[rounds]") == 0


def test_a_digest_is_read_out_in_groups_of_four() -> None:
    digest = "0123456789abcdef" * 4
    assert group_digest(digest) == ["0123 4567 89ab cdef"] * 4


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "n = 1, f = 0, q = 1"), (3, "n = 3, f = 0, q = 2"), (4, "n = 4, f = 1, q = 3")],
)
def test_words_say_what_few_members_cannot_tolerate(tmp_path: Path, count: int, words: str) -> None:
    sites = make_federation(tmp_path, ("Anna", "Berta", "Clara", "Dora")[:count])
    chapters = {c.heading: c.lines for c in describe(load_charter(sites[0].charter.read_bytes()))}
    agreement = " ".join(chapters["Agreement"])
    assert words in agreement
    assert ("no liar is tolerated" in agreement) == (count < 4)
    assert len(chapters["Members"]) == count


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("logistic", {}),
        ("mlp", {}),
        ("mlp", {"hidden": [128, 64, 32], "batch_norm": True, "dropout": 0.1}),
        ("mlp", {"hidden": []}),
    ],
)
@pytest.mark.parametrize("indicator", [False, True])
def test_the_parameter_count_is_the_models_own(
    name: str, arguments: dict[str, Any], *, indicator: bool
) -> None:
    from swarm.learning.models import build_model
    from swarm.learning.parameters import Layout
    from swarm.learning.preprocessing import feature_count
    from swarm.learning.task import outputs

    text = assemble(
        draft(model=name, model_arguments=arguments, settings={"data.missing_indicator": indicator})
    )
    charter = load_charter(text.encode(), complete=False)
    model = build_model(
        charter.model,
        inputs=feature_count(charter.schema),
        outputs=outputs(charter.schema),
        seed=0,
        allow=(),
    )
    assert parameter_count(charter.model, charter.schema) == Layout.of(model).count


def test_the_size_of_a_hospitals_own_model_is_not_guessed() -> None:
    charter = load_charter(
        assemble(draft(model="python:own:Net", model_arguments={})).encode(), complete=False
    )
    assert parameter_count(charter.model, charter.schema) is None


def test_durations_are_spelt_as_people_do() -> None:
    assert [duration(s) for s in (0.5, 30, 90, 3600, 5400)] == [
        "0.5 s",
        "30 s",
        "1.5 min",
        "1 h",
        "1.5 h",
    ]
