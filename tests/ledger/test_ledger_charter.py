"""Every wrong charter is refused in one line that names the key and what to change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_factory import CHARTER_HEAD, Federation, charter_of, member_block

from ledger.charter import CHARTER_BYTES_MAX, Charter, CharterError, charter_net, load_charter
from ledger.errors import ConfigError, SwarmError, VerificationError
from ledger.roster import Roster


def problem(data: bytes | str, *, complete: bool = True) -> str:
    with pytest.raises(CharterError) as caught:
        load_charter(data.encode() if isinstance(data, str) else data, complete=complete)
    text = str(caught.value)
    assert text.startswith("charter.toml: ")
    assert "\n" not in text
    assert len(text) < 500
    return text.removeprefix("charter.toml: ")


def edited(old: str, new: str, members: int = 2) -> str:
    text = charter_of(members).decode()
    assert old in text
    return text.replace(old, new, 1)


def test_the_defaults_of_a_short_charter() -> None:
    charter = load_charter(charter_of(4))
    assert charter.federation == "Test federation"
    assert (charter.training.optimiser, charter.training.local_epochs) == ("sgd", 1)
    assert (charter.rounds.rounds, charter.rounds.members_min) == (10, 2)
    assert charter.schema.metric == "auc"
    assert charter.schema.standardise == "federated"
    assert charter.aggregation.share_cap_micro == 1_000_000
    assert charter.privacy.sample_count == "exact"
    assert charter.reputation.mode == "off"
    assert [member.index for member in charter.members] == [0, 1, 2, 3]
    assert charter.members[2].role == "hospital"


def test_every_knob_arrives() -> None:
    text = """\
version = 1
federation = "Nord"
seed = 7
[model]
name = "python:own.models:Net"
arguments = {hidden = [32, 16], dropout = 0.5, batch_norm = true, act = "relu"}
[data]
label = "stage"
head = "multiclass"
classes = ["I", "II", "III"]
standardise = "local"
missing_indicator = true
metric = "log_loss"
features = [
  {name = "sex", type = "category", categories = ["f", "m"]},
  {name = "age", type = "number", minimum = 0, maximum = 120.5},
]
[training]
optimiser = "adamw"
learning_rate = 1
weight_decay = 0.01
momentum = 0.5
batch_size = 8
local_steps = 20
class_weights = "balanced"
loss = "auto"
[rounds]
rounds = 3
members_min = 1
deadline_min_s = 0.5
deadline_max_s = 60
deadline_factor = 2
grace_s = 0
start_wait_s = 5
inactive_after_rounds = 2
required = ["Hospital 1"]
payload_bytes_max = 1000
[aggregation]
strategy = "fedavg"
rule = "mean"
averaging = "full"
weighting = "uniform"
share_cap = 0.4
[privacy]
sample_count = "bucket"
[reputation]
mode = "off"
"""
    charter = load_charter((text + member_block(0) + member_block(1, role="lead")).encode())
    assert charter.model.arguments == {
        "hidden": (32, 16), "dropout": 0.5, "batch_norm": True, "act": "relu"
    }  # fmt: skip
    assert charter.schema.features[0].categories == ("f", "m")
    assert charter.schema.features[1].maximum == 120.5
    assert charter.training.local_epochs == 0
    assert charter.rounds.required == ("Hospital 1",)
    assert charter.aggregation.share_cap_micro == 400_000
    assert charter.members[1].role == "lead"
    assert charter.seed == 7


def test_the_network_is_the_exact_bytes() -> None:
    one = load_charter(charter_of(2))
    other = load_charter(charter_of(2) + b"\n")
    assert one.net != other.net
    assert one.net == charter_net(one.source_bytes)
    assert one.digest_hex == one.net.hex()


def test_a_charter_may_be_read_while_it_is_being_assembled() -> None:
    text = CHARTER_HEAD.replace(
        "rounds = 10", 'rounds = 10\nrequired = ["St. Anna"]\nmembers_min = 3'
    )
    charter = load_charter(text.encode(), complete=False)
    assert charter.members == ()
    assert charter.rounds.members_min == 3
    assert "members are missing" in problem(CHARTER_HEAD)
    assert (Roster.from_charter(charter).f, Roster.from_charter(charter).q) == (0, 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "rounds = 10",
            'rounds = "x"',
            '[rounds] rounds must be an integer from 1 to 100000, got "x"',
        ),
        (
            "rounds = 10",
            "rounds = true",
            "[rounds] rounds must be an integer from 1 to 100000, got true",
        ),
        ("rounds = 10", "rounds = 0", "[rounds] rounds must be an integer"),
        ("rounds = 10", "", "[rounds] rounds is missing; add it"),
        ("[rounds]\nrounds = 10", "", "rounds is missing; add it"),
        ("rounds = 10", "rounds = 10\nroudns = 3", "[rounds] roudns is not known; remove it"),
        (
            "rounds = 10",
            "rounds = 10\nmembers_min = 3",
            "members_min must be an integer from 1 to 2",
        ),
        (
            "rounds = 10",
            'rounds = 10\nrequired = ["Bob"]',
            'required names "Bob", who is no member',
        ),
        ("rounds = 10", 'rounds = 10\nrequired = ["a", "a"]', 'required names "a" twice'),
        ("rounds = 10", 'rounds = 10\nrequired = "a"', "required must be an array"),
        (
            "rounds = 10",
            "rounds = 10\ndeadline_min_s = 9\ndeadline_max_s = 8",
            "deadline_min_s must",
        ),
        ("rounds = 10", "rounds = 10\ndeadline_min_s = 0", "a number above 0"),
        ("rounds = 10", "rounds = 10\ngrace_s = nan", "[rounds] grace_s must be a number from 0"),
        ("rounds = 10", "rounds = 10\ngrace_s = inf", "[rounds] grace_s must be a number from 0"),
        ("rounds = 10", "rounds = 10\n[training]\nlearning_rate = -1", "[training] learning_rate"),
        (
            "rounds = 10",
            "rounds = 10\n[training]\nlocal_steps = 1\nlocal_epochs = 1",
            "exactly one",
        ),
        ("rounds = 10", "rounds = 10\n[training]\nlocal_epochs = 0", "exactly one of them"),
        (
            "rounds = 10",
            'rounds = 10\n[training]\nloss = "mse"',
            '[training] loss must be one of "auto"',
        ),
        (
            "rounds = 10",
            "rounds = 10\n[aggregation]\nshare_cap = 0",
            "[aggregation] share_cap must",
        ),
        ("rounds = 10", 'rounds = 10\n[privacy]\nmode = "x"', "[privacy] mode is not known"),
        ("rounds = 10", 'rounds = 10\n[reputation]\nmode = "on"', "[reputation] mode must be"),
        ("version = 1", "version = 2", "version must be an integer from 1 to 1, got 2"),
        ("version = 1", "", "version is missing"),
        ("version = 1", "version = 1\ncolour = 3", "colour is not known"),
        ("version = 1", "version = 1\nseed = -1", "seed must be"),
        ("version = 1", f"version = 1\nseed = 1{'0' * 90}", "an integer of more than 60 digits"),
        ('federation = "Test federation"', 'federation = ""', "federation must be 1 to 128"),
        ("Test federation", "Test\\u001b[2J", "federation must be 1 to 128 printable"),
        ("Test federation", " Test", "federation must be 1 to 128 printable"),
        ("Test federation", "x" * 129, "federation must be 1 to 128 printable"),
        ('name = "logistic"', "name = 3", "[model] name must be 1 to 256"),
        ('name = "logistic"', 'name = "m"\narguments = 3', "[model] arguments must be a table"),
        ('"logistic"', '"m"\narguments = {a = 1979-05-27}', "[model.arguments] a must be a string"),
        ('"logistic"', '"m"\narguments = {a = nan}', "[model.arguments] a must be finite"),
        ('"logistic"', '"m"\narguments = {a = 99999999999999999999}', "a must fit into 64 bits"),
        ('"logistic"', '"m"\narguments = {a = [[[[[1]]]]]}', "[model.arguments] a must be"),
        ('"logistic"', '"m"\narguments = {"a b" = 1}', "must be a name of letters"),
        ('head = "binary"', 'head = "three"', "[data] head must be one of"),
        ('["no", "yes"]', '["no"]', "[data] classes must hold 2 names"),
        ('["no", "yes"]', '["no", "no"]', '[data] classes names "no" twice'),
        ('["no", "yes"]', '["no", 3]', "[data] classes must be 1 to 128 printable"),
        ('head = "binary"', 'head = "regression"', "[data] classes must hold no names"),
        ('label = "outcome"', 'label = "age"', '[data] features name "age" twice'),
        ('label = "outcome"', 'label = "y"\nmetric = "mse"', "[data] metric must be one of"),
        ('label = "outcome"', 'label = "y"\nmissing_indicator = 1', "must be true or false, got 1"),
        ('type = "number"', 'type = "date"', "[[data.features]] 0 type must be one of"),
        ('type = "number"', 'type = "number"\ncategories = ["a"]', "categories must be absent"),
        ('type = "number"', 'type = "category"\ncategories = ["a"]', "categories must be named"),
        ("minimum = 0", "minimum = 120", "[[data.features]] 0 minimum must be below maximum"),
        ("minimum = 0", "minimum = nan", "[[data.features]] 0 minimum must be a finite number"),
        ("minimum = 0", 'minimum = 0\nunit = "a"', "[[data.features]] 0 unit is not known"),
        ("[[members]]", "[members]", "not TOML"),
        (
            '"/ip4/10.0.0.1/tcp/4001"',
            '"10.0.0.1:4001"',
            '[[members]] 0 addresses must start with "/"',
        ),
        ('"Hospital 1"', '"Hospital 0"', '[[members]] 1 name "Hospital 0" is member 0\'s too'),
        ('name = "Hospital 1"', "", "[[members]] 1 name is missing"),
        ("ledger_key", "leger_key", "[[members]] 0 ledger_key is missing"),
        ('addresses = ["/ip4', 'age = 3\naddresses = ["/ip4', "[[members]] 0 age is not known"),
    ],
)
def test_an_error_names_the_key_and_what_to_change(old: str, new: str, said: str) -> None:
    assert said in problem(edited(old, new))


def test_keys_are_64_lower_case_hex_digits() -> None:
    key = Federation(2).charter.members[1].admin_key.hex()
    for wrong in (key.upper(), key[:-1], key + "0", "zz" + key[2:]):
        assert "64 lower-case hex digits" in problem(edited(key, wrong))


def test_weak_and_reused_keys_have_codes() -> None:
    members = Federation(2).charter.members
    for old, new, code in (
        (members[1].admin_key, members[0].ledger_key, "E_KEY_REUSE"),
        (members[1].witness_key, members[1].ledger_key, "E_KEY_REUSE"),
        (members[1].network_key, bytes(32), "E_WEAK_KEY"),
    ):
        with pytest.raises(CharterError) as caught:
            load_charter(edited(old.hex(), new.hex()).encode())
        assert caught.value.code == code


def test_what_is_no_text_no_toml_or_too_much_is_refused() -> None:
    assert "not UTF-8" in problem(b"\xff")
    assert "not TOML" in problem("version = ")
    assert "not TOML" in problem("a = " + "[" * 5_000)
    assert "not TOML" in problem("a = " + "9" * 5_000)
    assert "at most" in problem(b"#" * (CHARTER_BYTES_MAX + 1))
    assert "members has 257 tables" in problem(CHARTER_HEAD + "[[members]]\n" * 257)
    assert "must be an array of tables" in problem("members = [1]\n" + CHARTER_HEAD)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with pytest.raises(ConfigError):
        load_charter(data)


@given(st.integers(0, 2_000), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused_in_one_line(position: int, byte: int) -> None:
    data = bytearray(charter_of(2))
    data[position % len(data)] = byte
    try:
        assert isinstance(load_charter(bytes(data)), Charter)
    except SwarmError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("n", "f", "q"), [(1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 1, 3), (5, 1, 4), (7, 2, 5), (10, 3, 7)]
)
def test_quorums(n: int, f: int, q: int) -> None:
    roster = Federation(n).roster
    assert (roster.n, roster.f, roster.q) == (n, f, q)
    # Two quorums share more members than can lie, and the honest alone make one.
    assert 2 * q - n > f
    assert n - f >= q


def test_the_roster_knows_members_and_nobody_else() -> None:
    roster = Federation(2).roster
    assert roster.member(1).name == "Hospital 1"
    for author, epoch in ((2, 0), (-1, 0), (0, 1)):
        with pytest.raises(VerificationError, match="E_UNKNOWN_AUTHOR"):
            roster.key(author, epoch)
