"""Whole nodes under a robust rule, a lossy codec and a strategy with a state; the auditor does it all again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from ledger.bundle import export_bundle
from ledger.charter import Charter
from ledger.record import Kind, Record, Verified
from ledger.store import Store
from ledger.verify import Brought, verify_bundles
from node.own_memory import OwnMemory
from node.payload_export import export_payloads
from node.service import Service
from scenarios.simulation.swarm import Swarm
from swarm.learning.trained import Trained
from swarm.protocol.phases import Phase
from tests.node.test_rounds_live import inputs_of, run
from tests.simulated import fresh, swarm_of

MEMBERS = 4
LIAR = 3
SHORT = {"deadline_min_s": 1.0, "deadline_max_s": 4.0, "grace_s": 1.0}
ROBUST = (
    'rule = "trimmed_mean"\nneighbour_mixing = true\nliars_share = 0.25\ncodec = "top_k_int8"\n'
    "keep_share = 0.4"
)


def keeping_all(_index: int, service: Service) -> None:
    """As `keep_rounds = "all"` does."""
    service.janitor._keep = replace(service.janitor._keep, rounds=None)


def results(swarm: Swarm) -> dict[int, bytes]:
    book = swarm.services[0].book
    agreed = {round_: book.agreed(round_) for round_ in book.agreed_rounds()}
    return {round_: one.proposal.result for round_, one in agreed.items() if one}


def audit(
    directory: Path, charter: Charter, member: int, *, without: frozenset[bytes] = frozenset()
) -> list[tuple[int, str, int | None]]:
    """What an auditor with this member's bundle and payloads finds, but for the payloads ``without``."""
    target = fresh(directory / f"audit-{member}-{len(without)}")
    with Store.open(directory / f"{member}.db", read_only=True) as store:
        bundle = export_bundle(store, charter.source_bytes, target / "bundle")
        export_payloads(store, directory / f"{member}.blobs", target / "payloads")
    for digest in without:
        (target / "payloads" / f"{digest.hex()}.1").unlink()
    report = verify_bundles(
        [bundle], charter.source_bytes, charter.digest_hex,
        brought=Brought(payloads=target / "payloads"),
    )  # fmt: skip
    assert report.missing == (), report.to_text()
    return [(one.step, one.error.code, one.error.author) for one in report.findings]


@pytest.mark.parametrize(
    "aggregation",
    [
        ROBUST,
        'strategy = "fedadam"\nrule = "centered_clipping"\ncodec = "int8"',
        'strategy = "scaffold"\ncodec = "int4"',
        'strategy = "ifca"',
    ],
)
def test_all_agree_and_the_auditor_gets_every_result_without_having_any(
    tmp_path: Path, aggregation: str
) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=3, aggregation=aggregation)
    swarm, _ = run(charter, sites, tmp_path, tamper=keeping_all)
    assert swarm.failures == []
    found = results(swarm)
    assert set(found) == {0, 1, 2, 3}
    assert len({service.machine.model for service in swarm.services.values()}) == 1
    assert audit(tmp_path, charter, 1) == []
    models = frozenset(found.values()) - {found[0]}
    assert audit(tmp_path, charter, 1, without=models) == []


@pytest.mark.parametrize("wrong", ["rule", "base"])
def test_a_member_that_merges_otherwise_than_it_says_is_found(tmp_path: Path, wrong: str) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=2, aggregation=ROBUST)

    def tamper(index: int, service: Service) -> None:
        keeping_all(index, service)
        if index != LIAR:
            return
        learner = service._hospital.learner
        merger = learner._merger  # type: ignore[attr-defined]
        if wrong == "rule":
            policy = replace(merger.policy, rule="mean")
            learner._merger = replace(merger, policy=policy)  # type: ignore[attr-defined]
        else:
            honest = learner.merge
            initial = learner.initial()
            learner.merge = lambda inputs, _origin: honest(inputs, initial)  # type: ignore[method-assign]

    swarm, _ = run(charter, sites, tmp_path, tamper=tamper)
    assert not [text for text in swarm.failures if "hospital-d" not in text], swarm.failures
    assert set(results(swarm)) == {0, 1, 2}, "the others agree without it"
    assert audit(tmp_path, charter, 0) == [(20, "E_AGG_RESULT", LIAR)]


def test_a_late_update_adds_what_is_new_in_it_to_a_newer_base(tmp_path: Path) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=6, aggregation='codec = "int8"', **SHORT)
    swarm, _ = run(charter, sites, tmp_path, train_s={LIAR: 6.0})
    assert swarm.failures == []
    late = {r: by[LIAR] for r, by in inputs_of(swarm).items() if by.get(LIAR, r) < r}
    assert late, inputs_of(swarm)
    assert len({service.machine.model for service in swarm.services.values()}) == 1


def test_neighbours_merge_by_a_robust_rule_and_the_auditor_follows_each(tmp_path: Path) -> None:
    gossip = 'averaging = "gossip"\ntopology = "ring"\nrule = "median"'
    charter, sites = swarm_of(5, rounds=3, aggregation=gossip, **SHORT)
    swarm, _ = run(charter, sites, tmp_path, tamper=keeping_all)
    assert swarm.failures == []
    assert all(one.machine.phase is Phase.DONE for one in swarm.services.values())
    target = fresh(tmp_path / "payloads")
    for index in range(5):  # each has its own models: an auditor collects them
        for path in (tmp_path / f"{index}.blobs").glob("*.*"):
            shutil.copyfile(path, target / path.name)
    with Store.open(tmp_path / "0.db", read_only=True) as store:
        bundle = export_bundle(store, charter.source_bytes, tmp_path / "bundle")
    brought = Brought(payloads=target)
    report = verify_bundles([bundle], charter.source_bytes, charter.digest_hex, brought=brought)
    assert report.verdict == "VERIFIED", report.to_text()
    assert report.missing == ()
    assert "16 merges" in " ".join(report.notes)


# A site that dies


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """What is agreed where nobody dies."""
    charter, sites = swarm_of(MEMBERS, rounds=4, aggregation=ROBUST)
    swarm, _ = run(charter, sites, tmp_path_factory.mktemp("calm"))
    return results(swarm)


@pytest.mark.parametrize("instant", ["in training", "after memory", "after contribution"])
def test_a_crash_at_any_instant_leaves_no_trace_in_what_is_sent(
    tmp_path: Path, instant: str, calm: dict[int, bytes]
) -> None:
    """The residual of error feedback survives: the same bits as without the crash."""
    charter, sites = swarm_of(MEMBERS, rounds=4, aggregation=ROBUST)
    dying = trio.Event()

    def tamper(index: int, service: Service) -> None:
        if index != 1 or dying.is_set():
            return
        memory, journal, learner = service.desk.memory, service.journal, service._hospital.learner
        train, keep, append = learner.train, memory.keep, journal.append

        def training(base: bytes, round_: int, *rest: Any) -> Trained:
            result = train(base, round_, *rest)
            strike("in training", round_)
            return result

        def keeping(round_: int, *rest: Any) -> None:
            keep(round_, *rest)
            strike("after memory", round_)

        async def appending(kind: Kind, round_: int, *rest: Any, **more: Any) -> Verified[Record]:
            record = await append(kind, round_, *rest, **more)
            if kind is Kind.CONTRIBUTION:
                strike("after contribution", round_)
            return record

        learner.train, memory.keep, journal.append = training, keeping, appending  # type: ignore[method-assign]

    def strike(now: str, round_: int) -> None:
        if (now, round_) == (instant, 2):
            dying.set()

    async def faults(swarm: Swarm) -> None:
        await dying.wait()
        await swarm.kill(1)
        swarm.start(1)

    hit, _ = run(charter, sites, fresh(tmp_path / "hit"), tamper=tamper, faults=faults)
    assert dying.is_set()
    assert hit.failures == []
    assert results(hit) == calm


def test_memory_of_another_contribution_or_a_torn_one_counts_as_none(tmp_path: Path) -> None:
    memory = OwnMemory(tmp_path / "memory", charter_digest=bytes(32))
    one, other = bytes([1]) * 32, bytes([2]) * 32
    arrays = {"codec.lost": np.arange(5, dtype=np.float32)}
    assert memory.load(3, one) == {}
    memory.keep(3, one, arrays)
    np.testing.assert_array_equal(memory.load(3, one)["codec.lost"], arrays["codec.lost"])
    assert memory.load(4, one) == {}
    assert memory.load(3, other) == {}
    assert OwnMemory(tmp_path / "memory", charter_digest=other).load(3, one) == {}
    memory.keep(4, other, arrays)
    memory.forget_others(4, other)
    assert memory.load(3, one) == {}
    (path,) = (tmp_path / "memory").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert memory.load(4, other) == {}


def test_the_folder_of_the_memory_outlives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record signs what the memory belongs to, so its folder's name is on the disk before."""
    folder, synced = tmp_path / "memory", list[tuple[Path, bool]]()

    def sync(directory: Path) -> None:
        synced.append((directory, folder.exists()))

    monkeypatch.setattr("node.own_memory.sync_directory", sync)
    memory = OwnMemory(folder, charter_digest=bytes(32))
    memory.keep(3, bytes(32), {"codec.lost": np.arange(5, dtype=np.float32)})
    assert (tmp_path, True) in synced
