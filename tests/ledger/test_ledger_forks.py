"""A proven fork under audit: what stands, what is shown of it, and that no order changes anything."""

import json
from itertools import permutations
from pathlib import Path
from random import Random

import pytest
from checkpoint_cases import with_checkpoint
from checkpoint_factory import cosigned
from fork_cases import LIAR, Forking
from hypothesis import given
from hypothesis import strategies as st
from ledger_cases import CASES, Case
from roster_factory import write_files

from ledger import cli
from ledger.bodies import ForkProof
from ledger.branches import Chain, standing
from ledger.charter import load_charter
from ledger.fork import Cut, check_fork_proof
from ledger.record import NO_ID
from ledger.roster import Roster
from ledger.verify import verify_bundles

NAMES = sorted(name for name in CASES if CASES[name]().forks and len(CASES[name]().bundles) > 1)


def written(case: Case, directory: Path) -> list[Path]:
    return [
        write_files(directory / str(number), files) for number, files in enumerate(case.bundles)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_bundles_changes_nothing(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    bundles = written(case, tmp_path)
    seen = []
    for order in permutations(bundles):
        found = verify_bundles(order, case.charter, case.digest).to_json()
        found["findings"] = sorted(json.dumps(one) for one in found["findings"])
        seen.append(found | {"notes": sorted(found["notes"])})
    if not case.expected:  # which file of several is named in a finding follows their order
        assert all(one == seen[0] for one in seen)
    assert all((one["forks"], one["void"]) == (seen[0]["forks"], seen[0]["void"]) for one in seen)


def proven_twice(tmp_path: Path) -> tuple[Case, list[Path]]:
    case = CASES["a_proven_fork_stands_where_it_is_final"]()
    return case, written(case, tmp_path)


def test_the_proof_is_printed_and_needs_nothing_but_the_roster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, bundles = proven_twice(tmp_path)
    report = verify_bundles(bundles, case.charter, case.digest)
    (fork,) = report.to_json()["forks"]
    text = report.to_text()
    assert "VERIFIED" in text.splitlines()[0]
    assert "forked, with proof: 3/0, 2 void" in text.splitlines()[0]
    assert all(f"proof: {half}" in text for half in fork["proof"])
    assert "one branch is final" in text
    body = ForkProof(
        envelope_a=bytes.fromhex(fork["proof"][0]), envelope_b=bytes.fromhex(fork["proof"][1])
    )
    shown = check_fork_proof(body, Roster.from_charter(load_charter(case.charter)))
    assert (shown.author, shown.epoch, shown.seq) == (LIAR, 0, 1)
    (tmp_path / "charter.toml").write_bytes(case.charter)
    arguments = [*map(str, bundles), "--charter", str(tmp_path / "charter.toml")]
    assert cli.main(["show", f"{LIAR}/0/1", *arguments, "--charter-digest", case.digest]) == 0
    assert "FINAL" in capsys.readouterr().out
    status = cli.main(
        ["report", *arguments, "--charter-digest", case.digest, "--out", str(tmp_path / "page.html"),
         "--json", str(tmp_path / "page.json")]
    )  # fmt: skip
    assert status == 0
    page = json.loads((tmp_path / "page.json").read_text())
    assert "has signed two records for slot 3/0/1" in json.dumps(page["anomalies"])


def test_a_checkpoint_of_a_void_branch_is_told_and_refutes_nothing(tmp_path: Path) -> None:
    """Its witnesses saw that branch before anybody knew of the other."""
    forking = Forking()
    one, _ = forking.branch(3), forking.branch(2)
    for member in (0, 1):
        forking.ack(member, one)
    forking.prove()
    federation = forking.federation
    checkpoint = cosigned(federation, LIAR, (0, 2, 3), 3)  # of the second branch
    bundles = [
        write_files(tmp_path / "0", forking.bundle(0)),
        write_files(tmp_path / "1", with_checkpoint(federation, checkpoint, LIAR)),
    ]
    for order in (bundles, bundles[::-1]):
        report = verify_bundles(order, federation.charter_bytes, federation.charter.digest_hex)
        assert report.verdict == "VERIFIED", report.to_text()
        assert report.anchored == 0
        assert any("void" in note for note in report.notes)


ids = [bytes([number]) * 32 for number in range(1, 60)]


@st.composite
def trees(draw: st.DrawFn) -> list[Chain]:
    """Chains that share prefixes, of which one at most is final beyond any branching."""
    fresh = iter(ids)
    chains = [[next(fresh) for _ in range(draw(st.integers(1, 5)))]]
    for _ in range(draw(st.integers(0, 3))):
        origin = draw(st.sampled_from(chains))
        shared = draw(st.integers(0, len(origin)))
        chains.append([*origin[:shared], *(next(fresh) for _ in range(draw(st.integers(1, 4))))])
    final = draw(st.sampled_from(chains))
    upto = draw(st.integers(-1, len(final) - 1))
    return [
        Chain(
            one, max((s for s in range(min(upto + 1, len(one))) if one[s] == final[s]), default=-1)
        )
        for one in chains
    ]


@given(trees(), st.integers(0, 2**32 - 1))
def test_what_is_final_stands_and_nobody_s_order_decides(chains: list[Chain], seed: int) -> None:
    found = standing(chains, {})
    assert found.conflict is None
    assert any(list(found.ids) == list(one.ids[: len(found.ids)]) for one in chains)
    for one in chains:
        assert tuple(one.ids[: one.final_seq + 1]) == found.ids[: one.final_seq + 1], "final stands"
    shuffled = [*chains, *chains]
    Random(seed).shuffle(shuffled)
    assert standing(shuffled, {}) == found


def test_a_cut_comes_before_finality() -> None:
    one, other = Chain(ids[:4], 3), Chain([ids[0], *ids[10:13]], 0)
    cut = Cut(author=1, epoch=0, kept=3, head_id=ids[11])
    assert standing([one, other], {}, cut).ids == (ids[0], ids[10], ids[11])
    nothing = Cut(author=1, epoch=0, kept=0, head_id=NO_ID)
    assert standing([one, other], {}, nothing).ids == ()
    unseen = Cut(author=1, epoch=0, kept=3, head_id=ids[30])
    assert standing([one, other], {}, unseen).ids == (ids[0],), "what all share may be part of it"
