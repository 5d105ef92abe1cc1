"""With the payloads every merge is done again: what was stored, and what was stated, must agree."""

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from ledger_factory import Federation, digest_of

from ledger import cli, recompute
from ledger.errors import ConfigError, PeerError
from ledger.recompute import MergeInput, load_recomputation
from ledger.record import Codec, Kind, Record, Rule, Verified
from ledger.verify import Brought, verify_bundles
from swarm.audit_recompute import LearningRecomputation
from swarm.learning.aggregation import weighted_mean
from swarm.learning.moments import local_moments, merge_moments
from swarm.learning.payload import encode_moments, encode_vector
from swarm.protocol.payload import payload_digest

LAYOUT = digest_of("layout")
HERE = EntryPoint("swarm", "swarm.audit_recompute:LearningRecomputation", recompute.GROUP)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point of pyproject.toml, wherever the tests run."""
    monkeypatch.setattr(recompute, "entry_points", lambda **_: EntryPoints([HERE]))


class Learned(Federation):
    """Three hospitals with real payloads of 50 parameters, and of the moments of 4 columns."""

    def __init__(self, payloads: Path) -> None:
        super().__init__(3)
        self.payloads = payloads
        payloads.mkdir()
        self.open_all()
        rng = np.random.default_rng(7)
        self.moments = [local_moments(rng.normal(size=(20, 4))) for _ in range(3)]
        self.vectors = [rng.normal(size=50).astype(np.float32) for _ in range(3)]

    def offer(self, author: int, round_: int, codec: Codec, payload: bytes) -> Verified[Record]:
        digest = payload_digest(codec, payload)
        (self.payloads / f"{digest.hex()}.{int(codec)}").write_bytes(payload)
        body = self.contribution_body(
            author, round_, codec=codec, update_digest=digest, bytes_count=len(payload)
        )
        return self.write(author, Kind.CONTRIBUTION, round_, body, with_acks=True)

    def play_both(self, liars: Sequence[int] = ()) -> None:
        sent = [encode_moments(one, LAYOUT) for one in self.moments]
        offered = [self.offer(i, 0, Codec.MOMENTS, payload) for i, payload in enumerate(sent)]
        order = sorted(range(3), key=lambda i: payload_digest(Codec.MOMENTS, sent[i]))
        pooled = encode_moments(merge_moments([self.moments[i] for i in order]), LAYOUT)
        body = self.aggregation_body(
            offered, 0, rule=Rule.MOMENTS, result_digest=payload_digest(Codec.MOMENTS, pooled)
        )
        body = replace(body, inputs=tuple(replace(i, weight_micro=0) for i in body.inputs))
        for author in range(3):
            self.write(author, Kind.AGGREGATION, 0, body)
        payloads = [encode_vector(one, LAYOUT) for one in self.vectors]
        offered = [self.offer(i, 1, Codec.FLOAT32, one) for i, one in enumerate(payloads)]
        body = self.aggregation_body(offered, 1)
        mean = weighted_mean(
            self.vectors,
            [one.weight_micro for one in body.inputs],
            [payload_digest(Codec.FLOAT32, one) for one in payloads],
        )
        merged = payload_digest(Codec.FLOAT32, encode_vector(mean, LAYOUT))
        for author in range(3):
            stated = digest_of("poisoned") if author in liars else merged
            self.write(author, Kind.AGGREGATION, 1, replace(body, result_digest=stated))


def found(federation: Learned, bundle: Path) -> list[tuple[int, str, int | None]]:
    report = verify_bundles(
        [federation.bundle(bundle)], federation.charter_bytes, federation.charter.digest_hex,
        brought=Brought(payloads=federation.payloads),
    )  # fmt: skip
    return [(one.step, one.error.code, one.error.author) for one in report.findings]


def test_every_merge_is_recomputed_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Learned(tmp_path / "payloads")
    federation.play_both()
    (federation.payloads / "notes.txt").write_bytes(b"not a payload")
    bundle = federation.bundle(tmp_path / "bundle")
    status = cli.main(
        ["verify", str(bundle), "--charter-digest", federation.charter.digest_hex,
         "--recompute", str(federation.payloads)]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert status == 0, out
    assert "supplied: 1 bundle, charter digest, payloads" in out.splitlines()[0]
    assert "6 payloads have the digest that the ledger names, and 2 merges were recomputed" in out


def test_without_payloads_the_report_says_that_nothing_was_recomputed(tmp_path: Path) -> None:
    federation = Learned(tmp_path / "payloads")
    federation.play_both()
    report = verify_bundles([federation.bundle(tmp_path / "bundle")], federation.charter_bytes)
    assert any("no merge was recomputed (step 20)" in note for note in report.notes)


def test_payload_bytes_that_are_not_those_of_the_ledger_are_refused(tmp_path: Path) -> None:
    federation = Learned(tmp_path / "payloads")
    federation.play_both()
    path = min(federation.payloads.glob("*.1"))
    good = path.read_bytes()
    bundle = tmp_path / "bundle"
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good + b"\x00", good[:-1], b""):
        path.write_bytes(bad)
        ((step, code, _),) = found(federation, bundle)
        assert (step, code) == (20, "E_PAYLOAD")
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(good)
    os.mkfifo(path)
    ((step, code, _),) = found(federation, bundle)
    assert (step, code) == (20, "E_PAYLOAD")


def test_absent_payloads_are_missing_evidence_and_no_refusal(tmp_path: Path) -> None:
    federation = Learned(tmp_path / "payloads")
    federation.play_both()
    min(federation.payloads.glob("*.1")).unlink()
    report = verify_bundles(
        [federation.bundle(tmp_path / "bundle")], None, federation.charter.digest_hex,
        brought=Brought(payloads=federation.payloads),
    )  # fmt: skip
    assert report.exit_status == 3
    assert report.missing == ("payloads of 1 contributions, so 1 merges were not recomputed",)


def test_a_result_that_its_inputs_do_not_give_is_refused_in_every_log_that_states_it(
    tmp_path: Path,
) -> None:
    federation = Learned(tmp_path / "payloads")
    federation.play_both(liars=(1, 2))
    assert found(federation, tmp_path / "bundle") == [
        (20, "E_AGG_RESULT", 1),
        (20, "E_AGG_RESULT", 2),
    ]


def test_inputs_that_do_not_fit_together_give_no_result_at_all(tmp_path: Path) -> None:
    federation = Learned(tmp_path / "payloads")
    federation.vectors[2] = federation.vectors[2][:49]
    payloads = [encode_vector(one, LAYOUT) for one in federation.vectors]
    offered = [federation.offer(i, 1, Codec.FLOAT32, one) for i, one in enumerate(payloads)]
    federation.write(0, Kind.AGGREGATION, 1, federation.aggregation_body(offered, 1))
    assert found(federation, tmp_path / "bundle") == [(20, "E_AGG_RESULT", 0)]


@pytest.mark.parametrize(
    "inputs",
    [
        [MergeInput(digest=b"", payload=b"short", weight_micro=1)],
        [MergeInput(digest=b"", payload=bytes(60), weight_micro=1)],
        [MergeInput(digest=b"", payload=encode_vector(np.ones(3, "f4"), LAYOUT), weight_micro=0)],
    ],
)
def test_what_cannot_be_merged_is_its_authors_fault(inputs: Sequence[MergeInput]) -> None:
    charter = Federation(3).charter
    for rule in (Rule.MEAN, Rule.MOMENTS):
        with pytest.raises(PeerError):
            LearningRecomputation().merge(charter, rule, inputs, None)


@pytest.mark.parametrize("entries", [[], [EntryPoint("x", "no_such_module:y", recompute.GROUP)]])
def test_without_the_learning_extra_one_line_says_what_to_install(
    entries: list[EntryPoint],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recompute, "entry_points", lambda **_: EntryPoints(entries))
    with pytest.raises(ConfigError, match=r"pip install 'swarm-node\[node\]'"):
        load_recomputation()
    assert cli.main(["verify", str(tmp_path), "--recompute", str(tmp_path)]) == 2
    assert "needs the learning extra" in capsys.readouterr().err


def test_a_payload_folder_that_cannot_be_read_is_no_verdict(tmp_path: Path) -> None:
    federation = Learned(tmp_path / "payloads")
    federation.play_both()
    bundle = federation.bundle(tmp_path / "bundle")
    with pytest.raises(ConfigError, match="nowhere"):
        verify_bundles([bundle], brought=Brought(payloads=tmp_path / "nowhere"))
    path = min(federation.payloads.glob("*.1"))
    good = path.read_bytes()
    path.unlink()
    (tmp_path / "real").write_bytes(good)
    path.symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="Too many levels of symbolic links"):
        verify_bundles([bundle], brought=Brought(payloads=federation.payloads))
