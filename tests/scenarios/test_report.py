"""report.html is whole in itself, escapes what others wrote, and tells the bad as well as the good."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from scenarios.figures import spread
from scenarios.outcome import Level, Outcome
from scenarios.report import render_report, write_report
from tests.scenarios.finished import finish, played

VOID = {"meta", "br", "img", "hr", "input", "link"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    hospitals = played(rounds=9)
    hospitals.play(10, absent=2)
    return finish(tmp_path_factory.mktemp("run"), hospitals).outcome


@pytest.fixture(scope="module")
def page(outcome: Outcome) -> str:
    return render_report(outcome)


class Structure(HTMLParser):
    """Collects tags and attributes, and fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = ("href", "src", "srcset", "data", "action", "poster")
        self.references += [value or "" for name, value in attrs if name in names]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def structure(page: str) -> Structure:
    parsed = Structure()
    parsed.feed(page)
    parsed.close()
    assert parsed.open in ([], ["li"])
    return parsed


def test_nothing_is_loaded_from_outside_and_nothing_runs(page: str) -> None:
    parsed = structure(page)
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|url\((?!#)", page)
    assert all(reference.startswith("#") for reference in parsed.references)
    assert not parsed.tags & {"script", "link", "iframe", "img", "object", "embed", "base"}
    assert "default-src 'none'" in page


def test_three_figures_keep_their_text_as_text(page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == 3
    assert all("<text" in figure and "Hospital 2" in figure for figure in figures)
    assert all("aria-label" in figure for figure in figures)


def test_numbers_weights_and_digests_stand_on_the_page(outcome: Outcome, page: str) -> None:
    for text in ("0.950", "0.900", "0.960", "Verified", "10 of 10", "20.0 %", "+0.050"):
        assert text in page
    groups = re.findall("....", outcome.ledger.charter_digest)
    assert " ".join(groups) in page
    assert f"--charter-digest {outcome.ledger.charter_digest}" in page


def test_an_absence_is_told_with_its_reason(page: str) -> None:
    assert "Round 10: Hospital 2 was left out: its update was not received in time." in page
    assert page.count('<i class="in" title') == 39
    assert page.count('<i class="out" title') == 1


def test_failures_lead_the_page(outcome: Outcome) -> None:
    page = render_report(replace(outcome, failures=("AUC: swarm below alone", "audit: REFUTED")))
    assert "2 checks failed." in page
    assert page.index("AUC: swarm below alone") < page.index("What each hospital gains")
    assert "Every check holds" not in page


def test_a_hostile_name_is_text_in_page_and_figures(outcome: Outcome) -> None:
    name = "<script>alert(1)</script>"
    hospitals = (replace(outcome.hospitals[0], name=name), *outcome.hospitals[1:])
    page = render_report(replace(outcome, hospitals=hospitals, title="<b>&</b>"))
    assert "script" not in structure(page).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in page


def test_a_hospital_without_an_auc_is_shown_with_a_dash(outcome: Outcome, tmp_path: Path) -> None:
    blank = replace(outcome.hospitals[3], auc=(), loss=(), alone=Level(), pooled=Level())
    path = write_report(replace(outcome, hospitals=(*outcome.hospitals[:3], blank)), tmp_path / "r")
    assert "<td>–</td>" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("heights", [[0.5, 0.5, 0.5], [0.99, 1.0, 1.0], [0.0, 0.01, 0.02]])
def test_labels_at_the_end_of_lines_never_overlap(heights: list[float]) -> None:
    placed = spread(heights, 0.1, 0.0, 1.0)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(placed))
    assert min(placed) >= 0.0
    assert max(placed) <= 1.0
