"""ANCHOR, RELEASE and WITHDRAWAL: stored, exported, verified, shown in words, on the page."""

import json
from pathlib import Path

import pytest
from ledger_factory import Federation, digest_of

from ledger import cli
from ledger.bodies import Anchor, Body, Release, Withdrawal
from ledger.bundle import export_bundle
from ledger.record import Kind
from ledger.store import Store

STATED: list[tuple[Kind, Body, str]] = [
    (
        Kind.ANCHOR,
        Anchor(checkpoint_digest=digest_of("c"), token_digest=b""),
        f"checkpoint {digest_of('c').hex()[:12]}, no time stamp",
    ),
    (
        Kind.ANCHOR,
        Anchor(checkpoint_digest=digest_of("c"), token_digest=digest_of("t")),
        f"checkpoint {digest_of('c').hex()[:12]}, time stamp {digest_of('t').hex()[:12]}",
    ),
    (
        Kind.RELEASE,
        Release(
            model_digest=digest_of("model 1"),
            aggregation_ids=(digest_of("a"), digest_of("b")),
            intended_use_digest=digest_of("u"),
        ),
        f"model {digest_of('model 1').hex()[:12]} leaves the swarm, resting on 2 aggregations",
    ),
    (
        Kind.WITHDRAWAL,
        Withdrawal(data_commitment=digest_of("d"), models=(digest_of("model 1"),)),
        f"data {digest_of('d').hex()[:12]} withdrawn, 1 model affected",
    ),
]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Through a real store: what is of the right shape is kept, exported and acked."""
    federation = Federation(3)
    federation.play(1)
    for kind, body, _ in STATED:
        federation.write(1, kind, 1, body)
    for author in (0, 2):
        federation.write(author, Kind.METRICS, 1, federation.metrics_body(1), with_acks=True)
    with Store.open(tmp_path / "ledger.db") as store:
        # A record of another log may come first; a store takes logs in any order.
        assert len(store.append(federation.records())) == len(federation.records())
        return export_bundle(store, federation.charter_bytes, tmp_path / "bundle")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = cli.main([str(one) for one in arguments])
    return status, capsys.readouterr().out


def test_they_verify_and_are_counted(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "verify", bundle, "--charter", bundle / "charter.toml", "--json")
    report = json.loads(out)
    assert (status, report["verdict"]) == (3, "VERIFIED")  # no digest was supplied
    assert report["counts"]["ANCHOR"] == {"final": 2, "signed": 0}
    assert report["counts"]["RELEASE"] == {"final": 1, "signed": 0}
    assert report["counts"]["WITHDRAWAL"] == {"final": 1, "signed": 0}


@pytest.mark.parametrize(("at", "stated"), list(enumerate(STATED)))
def test_each_is_shown_in_words(
    at: int, stated: tuple[Kind, Body, str], bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, _, text = stated
    _, out = run(capsys, "show", f"1/0/{4 + at}", bundle)
    assert out.startswith(f'{kind.name} 1/0/{4 + at} of "Hospital 1", round 1: FINAL')
    _, out = run(capsys, "log", bundle, "--author", "1", "--kind", kind.name.lower())
    assert f"Hospital 1: {text}" in out


def test_the_page_and_its_json_list_them(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, data = tmp_path / "page.html", tmp_path / "page.json"
    run(capsys, "report", bundle, "-o", page, "--json", data)
    html = page.read_text()
    assert "<h2>Releases, withdrawals and anchors</h2>" in html
    listed = json.loads(data.read_text())["statements"]
    assert [(one["kind"], one["text"]) for one in listed] == [
        (kind.name, text) for kind, _, text in STATED
    ]
    for _, _, text in STATED:
        assert text in html


def test_a_page_without_them_says_nothing_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(3)
    federation.play(1)
    page = tmp_path / "page.html"
    run(capsys, "report", federation.bundle(tmp_path / "bundle"), "-o", page)
    assert "Releases, withdrawals" not in page.read_text()
