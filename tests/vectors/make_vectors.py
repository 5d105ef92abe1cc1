"""Write the golden vectors of the ledger, from fixed seeds: the same bytes on every machine.

Run it as a script after a change of the format that is meant; the tests run it and compare.
"""

import json
import sys
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "ledger"))

from ledger_cases import CASES, Case, small  # noqa: E402
from ledger_factory import charter_of, seed_of  # noqa: E402

from ledger.canonical import encode  # noqa: E402
from ledger.charter import charter_net  # noqa: E402
from ledger.keys import PURPOSES, Signer, derive  # noqa: E402
from ledger.verify import verify_bundles  # noqa: E402
from ledger.weights import weights_micro  # noqa: E402

FORMAT = 1


def encoding_vectors() -> dict[str, Any]:
    valid: list[Any] = [
        0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 1, b"", b"x" * 31,
        bytes(32), b"y" * 256, [], [1, [b"z", []]], [0] * 15, [0] * 16,
    ]  # fmt: skip
    invalid = {
        "true": "c3",
        "nil": "c0",
        "minus one": "ff",
        "2^53": "cf0020000000000000",
        "float": "cb3ff0000000000000",
        "text": "a161",
        "map": "80",
        "extension": "d40100",
        "one in two bytes": "cc01",
        "one as a signed integer": "d001",
        "256 as a signed integer": "d10100",
        "array with a long header": "dc000105",
        "bytes with a long header": "c5000178",
        "two values": "0101",
        "nothing": "",
        "cut": "92c401",
        "array of four billion": "ddffffffff",
        "nine levels": "919191919191919191" + "00",
    }
    return {
        "valid": [{"value": shown(value), "encoding": encode(value).hex()} for value in valid],
        "invalid": [{"why": why, "encoding": data} for why, data in invalid.items()],
    }


def shown(value: Any) -> Any:
    """Byte strings as {"bin": hex}; JSON has none."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    return [shown(one) for one in value] if isinstance(value, list) else value


def key_vectors() -> list[dict[str, Any]]:
    rows = []
    for name in ("node 0", "node 1"):
        for purpose in PURPOSES:
            for epoch in (0, 1):
                derived = derive(seed_of(name), purpose, epoch)
                rows.append(
                    {
                        "seed": seed_of(name).hex(),
                        "purpose": purpose,
                        "epoch": epoch,
                        "derived": derived.hex(),
                        "public_key": Signer(derived).public_key.hex(),
                    }
                )
    return rows


class _Policy:
    def __init__(self, weighting: str, share_cap_micro: int, staleness_halves: int = 1) -> None:
        self.weighting = weighting
        self.share_cap_micro = share_cap_micro
        self.staleness_halves = staleness_halves


def weight_vectors() -> list[dict[str, Any]]:
    rows = []
    for samples in (
        [],
        [5],
        [0, 0],
        [1, 2, 4],
        [100, 50, 1],
        [10, 1, 1],
        [7, 7, 0],
        [2**53 - 1, 1],
    ):
        for weighting, cap in (
            ("samples", 1_000_000),
            ("samples", 400_000),
            ("uniform", 1_000_000),
        ):
            weights = weights_micro(samples, _Policy(weighting, cap))
            rows.append(
                {"samples": samples, "weighting": weighting, "share_cap_micro": cap,
                 "weights_micro": weights}
            )  # fmt: skip
    for late in ([0, 1, 2], [3, 0, 100]):
        for halves in range(5):
            for weighting in ("samples", "uniform"):
                policy = _Policy(weighting, 400_000, halves)
                weights = weights_micro([7, 2**53 - 1, 900], policy, staleness_rounds=late)
                rows.append(
                    {"samples": [7, 2**53 - 1, 900], "staleness_rounds": late,
                     "staleness_halves": halves, "weighting": weighting,
                     "share_cap_micro": 400_000, "weights_micro": weights}
                )  # fmt: skip
    return rows


def record_vectors() -> list[dict[str, Any]]:
    return [
        {
            "record": record.signed.record_bytes.hex(),
            "signature": record.signed.signature.hex(),
            "id": record.id.hex(),
            "envelope": record.signed.envelope().hex(),
        }
        for record in small().records()
    ]


def bundle_vectors(*, valid: bool) -> list[dict[str, Any]]:
    rows = []
    for _, build in sorted(CASES.items()):  # whoever imported which cases first
        case = build()
        if bool(case.expected) == valid:
            continue
        rows.append(
            {
                "name": case.name,
                "charter": case.charter.hex(),
                "charter_digest": case.digest,
                "bundles": [
                    {name: data.hex() for name, data in files.items()} for files in case.bundles
                ],
                "verdict": "REFUTED" if case.expected else "VERIFIED",
                "missing": case.missing,
                "findings": [list(pair) for pair in sorted(case.expected)],
                **_with_checkpoints(case),
                **_with_forks(case),
            }
        )
    return rows


def finality_vectors() -> list[dict[str, Any]]:
    """Of each valid bundle: author, epoch, records that stand, highest final seq (-1: none)."""
    rows = []
    for _, build in sorted(CASES.items()):
        case = build()
        if case.expected:
            continue
        with TemporaryDirectory() as directory:
            report = verify_bundles(_written(case, Path(directory)), case.charter, case.digest)
        logs = [[one.author, one.epoch, one.records, one.final_seq] for one in report.logs]
        rows.append({"name": case.name, "logs": logs})
    return rows


def _written(case: Case, directory: Path) -> list[Path]:
    for number, files in enumerate(case.bundles):
        for name, data in files.items():
            path = directory / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return [directory / str(number) for number in range(len(case.bundles))]


def _with_forks(case: Case) -> dict[str, Any]:
    """Return what only the cases with proven forks have."""
    if not case.forks:
        return {}
    return {"forks": [list(fork) for fork in case.forks], "contested": case.contested}


def _with_checkpoints(case: Case) -> dict[str, Any]:
    """Return what only the cases with checkpoints have."""
    if not (
        case.pins or case.tokens or any("checkpoints/" in name for name in chain(*case.bundles))
    ):
        return {}
    return {
        "pins": [data.hex() for data in case.pins],
        "tokens": [data.hex() for data in case.tokens],
        "anchored": case.anchored,
        "timestamped": case.timestamped,
    }


def vectors() -> dict[str, str]:
    """Return every file's name and text."""
    net = {"charter": charter_of(3).hex(), "net": charter_net(charter_of(3)).hex()}
    files: dict[str, Any] = {
        "encoding.json": encoding_vectors(),
        "identity.json": {"network": net, "keys": key_vectors()},
        "weights.json": weight_vectors(),
        "records.json": record_vectors(),
        "bundles_valid.json": bundle_vectors(valid=True),
        "bundles_invalid.json": bundle_vectors(valid=False),
        "finality.json": finality_vectors(),
    }
    return {
        name: json.dumps({"format": FORMAT, "vectors": rows}, indent=1) + "\n"
        for name, rows in files.items()
    }


if __name__ == "__main__":
    for file_name, text in vectors().items():
        (HERE / file_name).write_text(text)
