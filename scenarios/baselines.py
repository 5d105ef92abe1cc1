"""What the swarm is measured against: each hospital alone, and all patients in one place.

Room: scenarios. Law: reads the very files that the sites use, through the sites' own configuration
and loader, so that alone, swarm and pooled are judged on the same patients. A process of its own,
so that it can run beside the nodes: `python -m scenarios.baselines FILE SITE.toml …`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ledger.record import MetricId, MetricValue
from scenarios.commands import ScenarioError, last_line, tail
from scenarios.outcome import Level, Measured

MICRO: Final = 1_000_000
NICENESS: Final = 10  # the nodes go first
WAIT_S: Final = 120.0
Levels = dict[int, tuple[Level, Level]]


class BaselineProcess:
    """The baselines, computed beside the nodes (a context manager)."""

    def __init__(self, configs: Sequence[Path], directory: Path) -> None:
        self._configs = configs
        self._result = directory / "baselines.json"
        self._log = directory / "baselines.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        line = [sys.executable, "-m", "scenarios.baselines", str(self._result)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [*line, *map(str, self._configs)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def result(self) -> Levels:
        """Wait for the process; return index → (alone, pooled). Raises ScenarioError."""
        if self._process is None:
            raise ValueError("the baselines were not started")
        try:
            status = self._process.wait(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            raise ScenarioError(f"the baselines were not done after {WAIT_S:.0f} s") from None
        if status != 0:
            reason = last_line("\n".join(tail(self._log, 20)))
            raise ScenarioError(f"the baselines ended with exit status {status}: {reason}")
        return levels_from_json(json.loads(self._result.read_text(encoding="utf-8")))


def compute_levels(configs: Sequence[Path]) -> Levels:
    """Train alone and pooled; measure each on every hospital's own validation patients."""
    from node.config import load_site, load_site_charter
    from node.data import load_site_data
    from swarm.learning.baselines import train_alone, train_pooled
    from swarm.learning.seeding import derive_seed

    sites = [load_site(path) for path in configs]
    charter = load_site_charter(sites[0])
    data = [
        load_site_data(site.data, charter.schema, directory=site.directory, allow=site.allow)
        for site in sites
    ]
    allow = sites[0].allow
    pooled = train_pooled(charter, data, allow=allow, seed=derive_seed("pooled", charter.seed))
    levels = {}
    for index, site_data in enumerate(data):
        # The seed of the site's own node: the same patients, batches and resamples.
        seed = derive_seed("site", charter.seed, index)
        alone = train_alone(charter, site_data, allow=allow, seed=seed)
        levels[index] = (
            level_of(alone.evaluate(site_data)),
            level_of(pooled.evaluate(site_data)),
        )
    return levels


def level_of(values: Iterable[MetricValue]) -> Level:
    """Pick AUC and log-loss."""
    found = {
        value.metric: Measured(
            value=value.micro / MICRO,
            low=value.low_micro / MICRO,
            high=value.high_micro / MICRO,
            count=value.count,
        )
        for value in values
    }
    return Level(auc=found.get(MetricId.AUC), loss=found.get(MetricId.LOG_LOSS))


def levels_to_json(levels: Levels) -> dict[str, Any]:
    """Write as JSON values."""
    return {
        str(index): {"alone": asdict(alone), "pooled": asdict(pooled)}
        for index, (alone, pooled) in levels.items()
    }


def levels_from_json(value: Mapping[str, Any]) -> Levels:
    """Undo ``levels_to_json``."""

    def level(entry: Mapping[str, Any]) -> Level:
        return Level(**{key: Measured(**m) if m else None for key, m in entry.items()})

    return {
        int(index): (level(entry["alone"]), level(entry["pooled"]))
        for index, entry in value.items()
    }


def main(arguments: Sequence[str]) -> None:
    """Compute and write whole or nothing: arguments are the result file and the site files."""
    os.nice(NICENESS)
    result, *configs = (Path(argument) for argument in arguments)
    partial = result.with_suffix(".part")
    partial.write_text(json.dumps(levels_to_json(compute_levels(configs))), encoding="utf-8")
    partial.replace(result)


if __name__ == "__main__":
    main(sys.argv[1:])
