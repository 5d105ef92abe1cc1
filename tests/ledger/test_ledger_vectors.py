"""The golden vectors are what the code makes, and the code says of them what they say."""

import sys
from pathlib import Path
from typing import Any

import pytest
from ledger_factory import Federation

from ledger import canonical
from ledger.charter import charter_net
from ledger.errors import VerificationError
from ledger.keys import Signer, derive
from ledger.record import open_record, parse_envelope
from ledger.verify import Brought, verify_bundles
from ledger.weights import weights_micro
from tests.golden import assert_committed, read_vectors

VECTORS = Path(__file__).parent.parent / "vectors"
sys.path.insert(0, str(VECTORS))

import make_vectors  # noqa: E402


def load(name: str) -> Any:
    return read_vectors(VECTORS, name, number=1)


def test_the_committed_vectors_are_what_the_script_makes() -> None:
    assert_committed(VECTORS, make_vectors.vectors(), "tests/vectors/make_vectors.py")


def unshown(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["bin"])
    return [unshown(one) for one in value] if isinstance(value, list) else value


def test_encodings() -> None:
    rows = load("encoding.json")
    for row in rows["valid"]:
        data = bytes.fromhex(row["encoding"])
        assert canonical.decode(data) == unshown(row["value"])
        assert canonical.encode(unshown(row["value"])) == data
    for row in rows["invalid"]:
        with pytest.raises(VerificationError):
            canonical.decode(bytes.fromhex(row["encoding"]))


def test_identity() -> None:
    rows = load("identity.json")
    network = rows["network"]
    assert charter_net(bytes.fromhex(network["charter"])).hex() == network["net"]
    for row in rows["keys"]:
        derived = derive(bytes.fromhex(row["seed"]), row["purpose"], row["epoch"])
        assert derived.hex() == row["derived"]
        assert Signer(derived).public_key.hex() == row["public_key"]


def test_weights() -> None:
    for row in load("weights.json"):
        halves = row.get("staleness_halves", 1)
        policy = make_vectors._Policy(row["weighting"], row["share_cap_micro"], halves)
        late = row.get("staleness_rounds", ())
        assert weights_micro(row["samples"], policy, staleness_rounds=late) == row["weights_micro"]


def test_records() -> None:
    roster = Federation(3).roster
    for row in load("records.json"):
        opened = open_record(parse_envelope(bytes.fromhex(row["envelope"])), roster=roster)
        assert opened.id.hex() == row["id"]
        assert opened.signed.record_bytes.hex() == row["record"]
        assert opened.signed.signature.hex() == row["signature"]


FINALITY = {row["name"]: row["logs"] for row in load("finality.json")}
BUNDLES = [*load("bundles_valid.json"), *load("bundles_invalid.json")]


@pytest.mark.parametrize("row", BUNDLES, ids=[row["name"] for row in BUNDLES])
def test_bundles(row: dict[str, Any], tmp_path: Path) -> None:
    paths = []
    for number, files in enumerate(row["bundles"]):
        paths.append(tmp_path / str(number))
        for name, data in files.items():
            path = paths[-1] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes.fromhex(data))
    more: dict[str, Any] = {"pins": [], "tokens": []}
    for kind, brought in more.items():
        for number, data in enumerate(row.get(kind, ())):
            brought.append(tmp_path / f"{kind}{number}")
            brought[-1].write_bytes(bytes.fromhex(data))
    report = verify_bundles(
        paths, bytes.fromhex(row["charter"]), row["charter_digest"], brought=Brought(**more)
    )
    assert (report.anchored, report.timestamped) == (
        row.get("anchored", 0),
        row.get("timestamped", 0),
    )
    forks = [
        [one.author, one.epoch, one.seq, one.stands, sum(one.void.values())] for one in report.forks
    ]
    assert (forks, report.contested) == (row.get("forks", []), row.get("contested", 0))
    assert report.verdict == row["verdict"]
    if not row["findings"]:
        assert len(report.missing) == row["missing"]
        logs = [[one.author, one.epoch, one.records, one.final_seq] for one in report.logs]
        assert logs == FINALITY[row["name"]]
    findings = sorted([finding.step, finding.error.code] for finding in report.findings)
    assert findings == row["findings"]
