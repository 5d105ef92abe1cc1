"""Write the golden vectors of projections and of signals, from fixed seeds.

Run it as a script after a change of the rules that is meant; the tests run it and compare.
"""

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ledger.signal_arithmetic import (
    accumulate_milli,
    cosine_micro,
    deviation_milli,
    log2_milli,
    nearness_millibits,
    odds_millibits,
)
from ledger.signals import Claim, signals
from ledger.sketch import Projected, ProjectedRound
from swarm.scoring.projection import project

HERE = Path(__file__).parent
FORMAT = 1
MEMBERS, ROUNDS, DIMENSIONS = 7, 5, 16
NOISY, REPLAYER, REPLAYED = 2, 5, 6


def projection_vectors() -> list[dict[str, Any]]:
    """Updates as IEEE 754 binary32, big-endian; few values and more than dimensions, and an equal pair."""
    drawn = random.Random(1)
    made = []
    for length, dimensions in ((5, 16), (40, 16), (200, 64), (7, 16)):
        update = [drawn.gauss(0.0, 1.0) for _ in range(length)]
        origin = update if length == 7 else [drawn.gauss(0.0, 0.1) for _ in range(length)]
        seed = bytes(drawn.randrange(256) for _ in range(32))
        seen = project(
            np.asarray(update, dtype=np.float32), np.asarray(origin, dtype=np.float32),
            seed=seed, dimensions=dimensions,
        )  # fmt: skip
        made.append(
            {
                "seed": seed.hex(), "dimensions": dimensions,
                "update": struct.pack(f">{length}f", *update).hex(),
                "origin": struct.pack(f">{length}f", *origin).hex(),
                "exponent": seen.exponent, "values": list(seen.values),
            }
        )  # fmt: skip
    return made


def arithmetic_vectors() -> dict[str, list[list[Any]]]:
    """Arguments, then the result, of the functions of docs/free-riders.md §2 and §3."""
    drawn = random.Random(2)
    ratios = [(1, 1), (3, 7), (10**40, 3), *((drawn.randrange(1, 1 << 80), 977) for _ in range(5))]
    cosines = [-1_000_000, 0, 31_250, 500_000, 707_107, 940_000, 999_999, 1_000_000]
    groups = [[drawn.randrange(-5_000, 5_000) for _ in range(count)] for count in (4, 5, 9, 31)]
    return {
        "log2_milli": [[str(a), str(b), log2_milli(a, b)] for a, b in ratios],
        "cosine_micro": [[a, b, c, cosine_micro(a, b, c)] for a, b, c in ((7, 50, 2), (-9, 81, 1), (5, 0, 9))],
        "nearness_millibits": [[one, nearness_millibits(one)] for one in cosines],
        "odds_millibits": [[one, odds_millibits(one)] for one in cosines],
        "deviation_milli": [
            [value, group, floor, deviation_milli(value, group, floor=floor, most_milli=8_000)]
            for group in groups for value in (-4_000, 2_500) for floor in (1, 1_000)
        ],
        "accumulate_milli": [
            [before, found, accumulate_milli(before, found, allowed=2_500, kept_of_8=7)]
            for before, found in ((0, 2_000), (0, 5_500), (3_000, 5_500), (4_001, -8_000))
        ],
    }  # fmt: skip


def id_of(member: int, round_: int) -> bytes:
    return bytes([member, round_]).rjust(32, b"\0")


def updates() -> dict[tuple[int, int], list[int]]:
    """One member sends noise, one replays another's update of the round before; the rest work."""
    drawn = random.Random(3)

    def vector() -> list[float]:
        return [drawn.gauss(0.0, 1.0) for _ in range(DIMENSIONS)]

    common, own = vector(), [vector() for _ in range(MEMBERS)]
    made: dict[tuple[int, int], list[int]] = {}
    for number in range(1, ROUNDS + 1):
        for member in range(MEMBERS):
            fresh = vector()
            made[member, number] = [
                round(2_000 * (a + 0.5 * b + 0.3 * c))
                for a, b, c in zip(common, own[member], fresh, strict=True)
            ]
        made[NOISY, number] = [round(2_500 * value) for value in vector()]
        made[REPLAYER, number] = made[REPLAYED, max(1, number - 1)]
    return made


def signal_vectors() -> dict[str, Any]:
    """Sketches and claims of some rounds, without scores, and everybody's integers after the last."""
    made = updates()
    rounds = [
        ProjectedRound(
            number, bytes(32),
            tuple(
                Projected(member, at, id_of(member, at), -10 + member % 2, tuple(made[member, at]))
                for member in range(MEMBERS)
                for at in range(max(1, number - 2), number + 1)
            ),
        )
        for number in range(1, ROUNDS + 1)
    ]  # fmt: skip
    samples = [40, 60, 90, 120, 200, 100, 10]
    claims = {
        id_of(member, at): Claim(member, at, samples[member], 1_000_000, 10)
        for member, at in made
    }  # fmt: skip
    return {
        "samples": samples,
        "rounds": [
            {"round": one.round, "rows": [
                [row.member, row.round, row.id.hex(), row.exponent, list(row.values)] for row in one.sketches
            ]}
            for one in rounds
        ],
        "members": [
            {
                "member": one.member, "doubt_milli": one.doubt_milli, "peak_milli": one.peak_milli,
                "timeline": [[number, dict(sorted(found.items()))] for number, found in one.timeline],
                "alerts": [
                    [alert.signal, alert.round, alert.until, [id_.hex() for id_ in alert.evidence]]
                    for alert in one.alerts
                ],
            }
            for one in signals(rounds, (), claims)
        ],
    }  # fmt: skip


def vectors() -> dict[str, str]:
    """File name → text of every vector file."""
    made = {
        "arithmetic.json": arithmetic_vectors(),
        "projections.json": projection_vectors(),
        "signals.json": signal_vectors(),
    }
    return {
        name: json.dumps({"format": FORMAT, "vectors": value}) + "\n"
        for name, value in made.items()
    }  # fmt: skip


if __name__ == "__main__":
    for name, text in vectors().items():
        (HERE / name).write_text(text)
