"""What an auditor reads: one record, a list, a difference, a page; and that none of it can lie."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ledger_cases import CASES
from ledger_factory import CHARTER_HEAD, Federation, charter_of, digest_of, member_block
from reputation_records import opened
from test_ledger_tamper import write

from ledger import cli, dossier, report_html, svg
from ledger.bodies import (
    Anchor,
    Close,
    CloseReason,
    GroupValue,
    Kind,
    LeftOut,
    MetricId,
    Reason,
    Rejection,
    Release,
    Withdrawal,
)
from ledger.fork import fork_proof
from ledger.record import NO_ID


@pytest.fixture
def played(tmp_path: Path) -> tuple[Federation, str]:
    federation = Federation(4)
    federation.play(2)
    return federation, str(federation.bundle(tmp_path / "bundle"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# --- show -------------------------------------------------------------------------------------


def test_a_record_is_shown_with_units_state_and_who_acknowledged_it(
    played: tuple[Federation, str], capsys: pytest.CaptureFixture[str]
) -> None:
    federation, bundle = played
    digest = federation.charter.digest_hex
    record = federation.logs[2][1]
    status, out, _ = run(capsys, "show", "2/0/1", bundle, "--charter-digest", digest)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == 'CONTRIBUTION 2/0/1 of "Hospital 2", round 1: FINAL'
    for said in (
        f"  id                   {record.id.hex()}",
        "  samples              200 patients or rows",
        "  bytes_count          4,096 bytes",
        "  norm_micro           1.500000",
        "  codec                FLOAT32 (1)",
        "  epsilon_micro        0.000000 (privacy budget ε spent so far; 0: none was claimed)",
        "acknowledged by (with its author 4; 3 of the 4 members of roster 0 make it final)",
    ):
        assert said in lines
    assert "2023-11-14 22:13:20.070 UTC (the author's claim, not a proof)" in out
    assert '  3 "Hospital 3" first in 3/0/1, round 1' in out
    by_id = run(capsys, "show", record.id.hex()[:8].upper(), bundle, "--charter-digest", digest)
    assert by_id[1] == out
    assert lines[-1].startswith("audit of the bundles: VERIFIED")


def test_every_kind_can_be_shown_in_words_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = opened(3)
    federation.play_evaluated(1)
    head = federation.heads[1]
    one = federation.write(1, Kind.CLOSE, 1, Close(reason=CloseReason.DONE))
    federation.logs[1].pop()
    federation.heads[1] = head
    other = federation.write(1, Kind.CLOSE, 1, Close(reason=CloseReason.LEFT))
    offered = [log[1] for log in federation.logs]
    left = (LeftOut(author=2, reason=Reason.LATE),)
    body = federation.aggregation_body(offered[:2], 1, left_out=left)
    with_metrics = federation.contribution_body(2, 2, metrics=((1, 1_500_000),))
    for kind, what in (
        (Kind.AGGREGATION, body),
        (Kind.METRICS, federation.metrics_body(1)),
        (Kind.REJECTION, Rejection(target_id=NO_ID, reason=Reason.NORM_BOUND)),
        (Kind.FORK_PROOF, fork_proof(one.signed, other.signed)),
        (Kind.ANCHOR, Anchor(checkpoint_digest=NO_ID, token_digest=b"")),
        (Kind.RELEASE, Release(model_digest=NO_ID, aggregation_ids=(one.id,),
                               intended_use_digest=NO_ID)),
        (Kind.WITHDRAWAL, Withdrawal(data_commitment=NO_ID, models=(NO_ID,))),
        (Kind.CONTRIBUTION, with_metrics),
        (40_000, b"from later"),
    ):  # fmt: skip
        federation.write(2, kind, 2, what)
    bundle = str(federation.bundle(tmp_path / "bundle"))
    texts = []
    for author, log in enumerate(federation.logs):
        for seq in range(len(log)):
            place = f"{author}/0/{seq}"
            status, out, _ = run(capsys, "show", place, bundle)
            assert status == 3, out
            texts.append(out)
            shown = json.loads(run(capsys, "show", place, bundle, "--json")[1])
            assert shown["id"] == log[seq].id.hex()
            assert shown["kind"] == log[seq].value.kind
            assert shown["audit"]["verdict"] == "VERIFIED"
    everything = "\n".join(texts)
    for said in (
        "LEFT (2)", "NORM_BOUND (7)", '2 "Hospital 2": LATE (2)', "AUC 1.500000",
        "AUC 0.900000, interval 0.850000 to 0.950000, 64 cases", "loss 0.", "(not understood)",
        "token_digest         empty", "weight 0.400000",
    ):  # fmt: skip
        assert said in everything, said
    status, out, _ = run(capsys, "log", bundle)
    assert status == 0
    assert len(out.splitlines()) == len(texts)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("9/0/0", "no bundle has a log 9/0"),
        ("2/0/99", "the log ends before it"),
        ("zz", "give 4 to 64 hex digits"),
        ("00", "give 4 to 64 hex digits"),
        ("ffffffff", "no bundle has it"),
        ("1/2", "give 4 to 64 hex digits"),
    ],
)
def test_a_record_that_is_not_there_is_status_2(
    record: str, said: str, played: tuple[Federation, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "show", record, played[1])
    assert (status, out) == (2, "")
    assert said in err


def test_a_refused_record_is_shown_as_refused(
    played: tuple[Federation, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    federation, _ = played
    federation.write(1, Kind.CLOSE, 2, Close(reason=CloseReason.DONE), time_ms=1)
    bundle = str(federation.bundle(tmp_path / "spoilt"))
    status, out, _ = run(capsys, "show", "1/0/7", bundle)
    assert status == 1
    assert out.splitlines()[0].endswith("round 2: REFUSED by the audit")


# --- log --------------------------------------------------------------------------------------


def test_the_list_is_filtered_by_author_round_and_kind(
    played: tuple[Federation, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, bundle = played
    assert len(run(capsys, "log", bundle)[1].splitlines()) == 28
    for arguments, count in (
        (["--author", "2"], 7),
        (["--round", "1"], 12),
        (["--kind", "metrics"], 8),
        (["--kind", "3", "--round", "2", "--author", "0"], 1),
    ):
        status, out, _ = run(capsys, "log", bundle, *arguments)
        assert (status, len(out.splitlines())) == (0, count)
        as_json = run(capsys, "log", bundle, *arguments, "--json")[1].splitlines()
        assert len([json.loads(line) for line in as_json]) == count
    for arguments in (["--author", "7"], ["--kind", "nonsense"], ["--kind", "99"]):
        status, out, err = run(capsys, "log", bundle, *arguments)
        assert (status, out) == (2, "")
        assert err


def test_the_list_stops_at_what_does_not_open_and_says_so(
    played: tuple[Federation, str], capsys: pytest.CaptureFixture[str]
) -> None:
    federation, bundle = played
    path = Path(bundle) / "logs" / "0001-0000.log"
    envelope = federation.logs[1][3].signed.envelope()
    path.write_bytes(path.read_bytes().replace(envelope, envelope[:-1] + b"!"))
    status, out, err = run(capsys, "log", bundle)
    assert status == 1
    assert len(out.splitlines()) == 24
    assert "REFUTED: E_SIGNATURE" in err
    (Path(bundle) / "charter.toml").write_bytes(b"nonsense")
    assert run(capsys, "log", bundle)[0] == 2


# --- diff -------------------------------------------------------------------------------------


def test_a_bundle_is_the_same_as_itself(
    played: tuple[Federation, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "diff", played[1], played[1])
    assert status == 0
    assert out.splitlines()[0] == "SAME: 28 records in common"
    assert "log 3/0: the same 7 records" in out


def test_what_one_has_and_the_other_lacks_stands_in_words(
    played: tuple[Federation, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation, bundle = played
    short = str(federation.bundle(tmp_path / "short", counts=[7, 4, 0, 7]))
    status, out, _ = run(capsys, "diff", bundle, short)
    assert status == 1
    assert out.splitlines()[0] == "DIFFERENT: 18 records in common"
    assert "log 1/0: A has 7 records, B lacks the last 3 (seq 4 to 6)" in out
    assert "log 2/0: only A has it, 7 records" in out
    as_json = json.loads(run(capsys, "diff", short, bundle, "--json")[1])
    assert [log["records"] for log in as_json["logs"]] == [[7, 7], [4, 7], [0, 7], [7, 7]]
    assert not as_json["same"]


def test_forks_damage_and_other_charters_stand_in_words(
    played: tuple[Federation, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation, bundle = played
    other = Federation(4)
    other.play(1)
    other.clock_ms += 7
    other.play_round(2)
    path = other.bundle(tmp_path / "other")
    log = path / "logs" / "0003-0000.log"
    log.write_bytes(log.read_bytes()[:-4])
    (path / "charter.toml").write_bytes(federation.charter_bytes + b"\n")
    (path / "rosters").mkdir()
    (path / "rosters" / "0001.update").write_bytes(b"x")
    status, out, _ = run(capsys, "diff", bundle, str(path))
    assert status == 1
    assert "another charter: A " in out
    assert "roster 1: only B has it" in out
    assert "log 0/0: FORK at seq 4: A has " in out
    assert "log 3/0: B's file breaks off: E_TRUNCATED" in out
    again = federation.bundle(tmp_path / "again")
    (again / "rosters").mkdir()
    (again / "rosters" / "0001.update").write_bytes(b"y")
    log = again / "logs" / "0000-0000.log"
    envelope = federation.logs[0][2].signed.envelope()
    log.write_bytes(log.read_bytes().replace(envelope, envelope[:-1] + b"!"))
    log = again / "logs" / "0001-0000.log"
    envelope = federation.logs[1][2].signed.envelope()
    log.write_bytes(log.read_bytes().replace(envelope, b"!" * len(envelope)))
    out = run(capsys, "diff", str(again), str(path))[1]
    assert "roster 1: two different updates" in out
    assert "1 records with another signature" in run(capsys, "diff", str(again), bundle)[1]
    assert "A has no record (" in out
    assert run(capsys, "diff", bundle, "nowhere")[0] == 2


# --- report -----------------------------------------------------------------------------------


class Page(HTMLParser):
    """Text of a page; fails where a tag does not close."""

    VOID = frozenset({"meta", "br", "line", "polyline", "polygon", "circle"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in {"src", "href"} or (value or "").startswith("#")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + "\n"


def reported(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, Page, dict[str, Any]]:
    bundle = federation.bundle(tmp_path / "reported")
    html, as_json = tmp_path / "report.html", tmp_path / "report.json"
    status, out, err = run(
        capsys, "report", str(bundle), "--charter-digest", federation.charter.digest_hex,
        "-o", str(html), "--json", str(as_json), *more,
    )  # fmt: skip
    assert out.split(":")[0] in ("VERIFIED", "REFUTED")
    assert str(html) in err
    return status, Page(html.read_text()), json.loads(as_json.read_text())


def test_the_page_says_who_did_what_and_what_is_not_proved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(4)
    federation.play(3)
    federation.write(3, Kind.CLOSE, 3, Close(reason=CloseReason.LEFT))
    status, page, document = reported(federation, tmp_path, capsys)
    assert status == 0
    assert page.tags & {"script", "img", "link", "iframe"} == set()
    for said in (
        "VERIFIED", "Hospital 3", "2023-11-14 22:13", "What this evidence does not prove",
        "None was claimed", "Nothing unusual", "FINAL", "4 of 4", "14.3", "0.900",
        "0.850 to 0.950, n 64", "No evaluations were recorded", federation.charter.digest_hex,
    ):  # fmt: skip
        assert said in page.text, said
    assert "svg" in page.tags
    assert [one["round"] for one in document["rounds"]] == [1, 2, 3]
    weights = [one["weight_micro"] for one in document["rounds"][0]["results"][0]["inputs"]]
    assert weights == [142_857, 214_285, 285_714, 357_142]
    assert document["members"][3]["left_why"] == "LEFT"
    assert document["report"]["verdict"] == "VERIFIED"
    assert document["not_proved"]


def test_the_page_is_the_same_every_time_and_for_any_number_of_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(3)
    federation.play(1)
    one = reported(federation, tmp_path, capsys)
    other = reported(federation, tmp_path, capsys, "--jobs", "2")
    assert one[1].text == other[1].text
    assert one[2] == other[2]


def test_names_from_a_charter_cannot_become_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = '<script>alert(1)</script> & "co" <b>'
    federation = Federation(1)
    head = CHARTER_HEAD.replace("Test federation", evil.replace('"', "'"))
    charter = charter_of(0, head=head) + member_block(0, name=evil.replace('"', '\\"')).encode()
    federation.charter_bytes = charter
    from ledger.charter import load_charter
    from ledger.roster import Roster

    federation.charter = load_charter(charter)
    federation.roster = Roster.from_charter(federation.charter)
    federation.play(1)
    _, page, document = reported(federation, tmp_path, capsys)
    assert "script" not in page.tags
    assert evil in page.text
    assert document["members"][0]["name"] == evil


def unusual(federation: Federation) -> None:
    """Everything that an auditor should look at, in records that are right."""
    federation.open_all()
    offered = [
        federation.write(a, Kind.CONTRIBUTION, 1,
                         federation.contribution_body(a, 1, epsilon_micro=a * 500_000,
                                                      delta_exponent=5, mechanism=min(a, 1)),
                         with_acks=True)
        for a in range(3)
    ]  # fmt: skip
    body = federation.aggregation_body(
        offered[:2], 1, left_out=(LeftOut(author=2, reason=Reason.NORM_BOUND),)
    )
    federation.write(0, Kind.AGGREGATION, 1, body)
    federation.write(1, Kind.AGGREGATION, 1, replace(body, result_digest=digest_of("other")))
    federation.write(1, Kind.REJECTION, 1, Rejection(target_id=offered[2].id, reason=Reason.LATE))
    federation.write(1, Kind.REJECTION, 1, Rejection(target_id=NO_ID, reason=Reason.BAD_DIGEST))
    federation.clock_ms += 8 * 3_600_000
    federation.write(0, Kind.CONTRIBUTION, 2, federation.contribution_body(0, 2))
    federation.clock_ms -= 8 * 3_600_000
    federation.write(1, Kind.CONTRIBUTION, 2, federation.contribution_body(1, 2), with_acks=True)
    for round_ in (3, 9):
        one = federation.write(
            0, Kind.CONTRIBUTION, round_, federation.contribution_body(0, round_),
            time_ms=federation.clock_ms + 9 * 3_600_000,
        )  # fmt: skip
        federation.write(0, Kind.AGGREGATION, round_, federation.aggregation_body([one], round_),
                         time_ms=federation.clock_ms + 9 * 3_600_000)  # fmt: skip
    federation.write(2, Kind.WITHDRAWAL, 3, Withdrawal(data_commitment=NO_ID, models=()))


def test_what_is_unusual_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    federation = Federation(5)
    unusual(federation)
    status, page, document = reported(federation, tmp_path, capsys)
    assert status == 0, document["report"]["findings"]
    named = [one["name"] for one in document["anomalies"]]
    assert set(named) == {
        "refused contribution", "disagreeing results", "result of too few", "round without result",
        "silent member", "clocks apart", "pause or clock jump", "withdrawal",
    }  # fmt: skip
    for said in (
        "Hospital 1 refused Hospital 2's contribution", "an unknown contribution",
        "Hospital 1's clock was up to 8.0 hours behind Hospital 0's",
        "Hospital 4 has joined and never contributed", "Hospital 2 wrote last in round 3",
        "norm bound", "ε spent", "1.000000", "none was claimed",
    ):  # fmt: skip
        assert said in page.text, said


def test_reputation_is_drawn_where_there_are_evaluations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = opened(5)
    for round_ in (1, 2):
        federation.play_evaluated(round_)
    _, page, document = reported(federation, tmp_path, capsys)
    assert "Replayed from the records" in page.text
    assert document["reputation"]["round"] == 2


def test_metrics_are_pooled_over_members_and_subgroups_have_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(4)
    federation.open_all()
    for author in range(4):
        body = federation.metrics_body(1)
        part = GroupValue(
            subgroup=0, part=author % 2, metric=MetricId.AUC, micro=800_000 + 10_000 * author,
            low_micro=700_000, high_micro=900_000, count=20,
        )  # fmt: skip
        federation.write(author, Kind.METRICS, 1, replace(body, groups=(part,)))
    _, page, document = reported(federation, tmp_path, capsys)
    (told,) = document["rounds"]
    pooled = {one["metric"]: one for one in told["pooled_metrics"]}
    assert (pooled["AUC"]["micro"], pooled["AUC"]["count"]) == (900_000, 4 * 64)
    assert (
        pooled["AUC"]["high_micro"] - pooled["AUC"]["micro"] == 25_000
    )  # half of one's, with four
    assert [one["pooled"][0]["micro"] for one in told["subgroups"]] == [810_000, 820_000]
    assert "All, by patients" in page.text
    assert "subgroup 0, part 1" in page.text  # this charter names none: said by number


def test_a_refuted_ledger_is_reported_as_such_up_to_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(4)
    federation.play(1)
    federation.write(1, Kind.CLOSE, 1, Close(reason=CloseReason.DONE), round=0)
    status, page, document = reported(federation, tmp_path, capsys)
    assert status == 1
    assert "step 10: E_ROUND_BACKWARD" in page.text
    assert "refused by the audit" in page.text
    assert document["members"][1]["left_ms"] is None


def test_a_ledger_that_has_only_begun_has_a_page_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(2)
    federation.open(0)
    status, page, _ = reported(federation, tmp_path, capsys)
    assert status == 3
    assert "No round has begun." in page.text
    assert "not yet" in page.text
    assert "Hospital 1 has no record in these bundles" in page.text


def test_a_report_on_what_cannot_be_read_is_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(1)
    federation.open(0)
    bundle = federation.bundle(tmp_path / "bundle")
    out = tmp_path / "report.html"
    assert run(capsys, "report", str(bundle), "--charter-digest", "00" * 32, "-o", str(out))[0] == 2
    assert not out.exists()


def test_anchored_and_timestamped_records_are_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES["token_of_a_checkpoint_leaves_its_own_signature_to_openssl"]()
    (bundle,) = write(case, tmp_path)
    brought = []
    for number, data in enumerate(case.tokens):
        (tmp_path / f"token{number}").write_bytes(data)
        brought += ["--token", str(tmp_path / f"token{number}")]
    out = tmp_path / "report.html"
    assert run(capsys, "report", str(bundle), *brought, "-o", str(out))[0] == 3
    text = Page(out.read_text()).text
    assert "3 records are ANCHORED" in text
    assert "For 3 of them a time stamp" in text
    shown = run(capsys, "show", "2/0/0", str(bundle), *brought)[1]
    assert shown.splitlines()[0].endswith("TIMESTAMPED")
    run(capsys, "report", str(bundle), "-o", str(out))
    assert "None is TIMESTAMPED." in Page(out.read_text()).text
    assert run(capsys, "show", "2/0/0", str(bundle))[1].splitlines()[0].endswith("ANCHORED")


def test_a_damaged_bundle_beside_a_good_one_hides_nothing(
    played: tuple[Federation, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation, good = played
    bad = federation.bundle(tmp_path / "bad")
    path = bad / "logs" / "0001-0000.log"
    envelope = federation.logs[1][3].signed.envelope()
    path.write_bytes(path.read_bytes().replace(envelope, envelope[:-1] + b"!"))
    out, as_json = tmp_path / "r.html", tmp_path / "r.json"
    status, _, _ = run(capsys, "report", str(bad), good, "-o", str(out), "--json", str(as_json))
    assert status == 1
    assert [one["records"] for one in json.loads(as_json.read_text())["members"]] == [7] * 4
    status, shown, _ = run(capsys, "show", "1/0/4", str(bad), good)
    assert (status, shown.splitlines()[0].rpartition(": ")[2]) == (1, "FINAL")


def test_many_rounds_are_cut_on_the_page_and_whole_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_html, "ROUNDS_SHOWN_MAX", 2)
    monkeypatch.setattr(report_html, "ANOMALIES_SHOWN_MAX", 1)
    monkeypatch.setattr(svg, "_POINTS_MAX", 3)
    monkeypatch.setattr(dossier, "REPLAYED_MAX", 10)
    federation = Federation(4)
    federation.play(6)
    for target in (NO_ID, digest_of("x")):
        federation.write(1, Kind.REJECTION, 6, Rejection(target_id=target, reason=Reason.LATE))
    _, page, document = reported(federation, tmp_path, capsys)
    assert "The 4 rounds before stand in the JSON file." in page.text
    assert "1 more stand in the JSON file." in page.text
    assert "Not replayed: more than 10 records." in page.text
    assert len(document["rounds"]) == 6


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--jobs", "x"], ["--jobs", "999"]])
def test_jobs_that_cannot_be_are_status_2(
    arguments: list[str], played: tuple[Federation, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "verify", played[1], *arguments)
    assert (status, out) == (2, "")
    assert "jobs are 1 to 256" in err
