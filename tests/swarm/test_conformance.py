"""Every built-in extension passes its exam, and whoever breaks a promise is told which one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from swarm.conformance import (
    ConformanceError,
    check_codec,
    check_personalisation,
    check_robust_rule,
    check_strategy,
)
from swarm.learning.aggregation import weighted_mean
from swarm.learning.codecs import CODECS, Float16
from swarm.learning.layouts import home_names
from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.outer import Nesterov, outer_of
from swarm.learning.parameters import Layout, load
from swarm.learning.personalisation import (
    Ditto,
    FedBn,
    FineTune,
    Intercept,
    Shared,
    home_arrays,
)
from swarm.learning.robust import ROBUST_RULES, rule_of
from swarm.learning.rows import Vector
from swarm.learning.strategies.averaging import FedAvg
from swarm.learning.strategies.ifca import Ifca
from swarm.learning.strategies.per_fedavg import PerFedAvg
from swarm.learning.strategies.scaffold import CONTROL, Scaffold
from swarm.learning.strategy import Strategy
from swarm.learning.training import train_site

STRATEGIES: dict[str, Strategy] = {
    "fedavg": FedAvg(),
    "fedprox": FedAvg(proximal_mu=0.5),
    "scaffold": Scaffold(),
    "per_fedavg": PerFedAvg(inner_rate=0.05),
    "ifca": Ifca(clusters=3, seed=1),
} | {
    name: FedAvg(outer=outer_of(name, rate=0.05))
    for name in ("diloco", "fedadam", "fedyogi", "fedadagrad")
}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_passes_its_exam(name: str) -> None:
    check_strategy(STRATEGIES[name])


@pytest.mark.parametrize("name", list(CODECS))
def test_every_codec_passes_its_exam(name: str) -> None:
    check_codec(CODECS[name])


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("name", ROBUST_RULES)
def test_every_robust_rule_passes_its_exam(name: str, *, mixes: bool) -> None:
    for n, liars in ((5, 0), (5, 1), (11, 3)):
        check_robust_rule(rule_of(name, mixes=mixes), n=n, liars=liars)


def test_every_personalisation_passes_its_exam() -> None:
    check_personalisation(lambda _: Shared())
    check_personalisation(lambda _: Intercept())
    check_personalisation(lambda _: FineTune(steps=5, learning_rate=0.05))
    check_personalisation(lambda _: Ditto(steps=4, learning_rate=0.05, proximal_mu=0.3))
    check_personalisation(
        lambda module: FedBn(start=home_arrays(module)),
        layout_of=lambda module: Layout.of(module, home=home_names(module)),
    )


# Strategies that break a promise


@dataclass(frozen=True)
class Wrapped:
    """A strategy with one thing wrong."""

    right: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.right, name)


class Forgetful(Wrapped):
    """Remembers beside its memory."""

    def train(self, site: LocalSite, state: Vector, memory: Any) -> LocalResult:
        result = self.right.train(site, state, memory)
        seen = self.__dict__.setdefault("seen", [])
        seen.append(1)
        return replace(result, update=result.update + np.float32(1e-3 * len(seen)))


class Drifting(Wrapped):
    """Moves although nobody moved."""

    def step(self, state: Vector, merged: Vector) -> Vector:
        return self.right.step(state, merged) + np.float32(0.01)


class InPlace(Wrapped):
    def step(self, state: Vector, merged: Vector) -> Vector:
        state += np.float32(1)
        return self.right.step(state, merged)


class MemoryInPlace(Wrapped):
    def train(self, site: LocalSite, state: Vector, memory: Any) -> LocalResult:
        result = self.right.train(site, state, memory)
        if CONTROL in memory:
            memory[CONTROL][:] = 0
        return result


class TooLong(Wrapped):
    def update_length(self, d: int) -> int:
        return d + 1


class Thawing(Wrapped):
    """Trains what the layout says is frozen."""

    def train(self, site: LocalSite, state: Vector, memory: Any) -> LocalResult:
        result = self.right.train(site, state, memory)
        for parameter in site.module.parameters():
            parameter.data.add_(0.1)
        return result


class Lenient(Wrapped):
    def step(self, state: Vector, merged: Vector) -> Vector:
        return np.resize(merged, state.shape)


class Prudish(Wrapped):
    def examine(self, update: Vector) -> None:
        raise ValueError(f"no to {update.size}")


class Backwards(Wrapped):
    def step(self, state: Vector, merged: Vector) -> Vector:
        return state - 3 * (merged - state)


class Leftover(Wrapped):
    """Begins from what the module held, not from the state."""

    def train(self, site: LocalSite, state: Vector, memory: Any) -> LocalResult:
        del state, memory
        result = train_site(site)
        return LocalResult(
            update=result.parameters, steps=result.steps, samples=result.samples,
            loss_before=0.0, loss_after=0.0,
        )  # fmt: skip


class Diverging(Wrapped):
    """Divides by zero at the first chance."""

    def train(self, site: LocalSite, state: Vector, memory: Any) -> LocalResult:
        result = self.right.train(site, state, memory)
        return replace(result, update=np.where(result.update > 0, np.inf, result.update))


@pytest.mark.parametrize(
    ("strategy", "promise"),
    [
        (Forgetful(FedAvg()), "beside state and memory"),
        (Leftover(FedAvg()), "beside state and memory"),
        (Drifting(FedAvg()), "sites that did not move are moved"),
        (InPlace(FedAvg()), "the round's state was changed in place"),
        (MemoryInPlace(Scaffold()), "the memory was changed in place"),
        (TooLong(FedAvg()), r"the reference, update_length\(d\) values"),
        (Thawing(FedAvg()), "a frozen tensor was changed"),
        (Lenient(FedAvg()), "a merge of another length is not refused"),
        (Backwards(FedAvg()), "learn nothing"),
        (Prudish(FedAvg()), "an update of its own is refused: no to"),
        (Diverging(FedAvg()), "an update.*not finite"),
        (FedAvg(outer=Nesterov(rate=-2.0)), "learn nothing"),
    ],
)
def test_a_broken_strategy_is_told_which_promise_it_broke(strategy: Any, promise: str) -> None:
    with pytest.raises(ConformanceError, match=promise):
        check_strategy(strategy)


# Codecs


class Padded(Wrapped):
    def unpack(self, data: bytes, count: int) -> Vector:
        return self.right.unpack(data[: self.right.bytes_max(count)], count)


class Crashing(Wrapped):
    def unpack(self, data: bytes, count: int) -> Vector:
        if len(data) != 2 * count:
            raise IndexError("list index out of range")
        return self.right.unpack(data, count)


class Longer(Wrapped):
    def bytes_max(self, count: int) -> int:
        return count


class Halving(Wrapped):
    """Loses half of everything, which feedback brings back only if the loss is known."""

    def pack(self, update: Vector) -> bytes:
        return self.right.pack(update * np.float32(0.001))


class Random(Wrapped):
    def pack(self, update: Vector) -> bytes:
        turn = self.__dict__.setdefault("turn", [])
        turn.append(1)
        return self.right.pack(update + np.float32(len(turn)))


class Overflowing(Wrapped):
    def unpack(self, data: bytes, count: int) -> Vector:
        with np.errstate(over="ignore", invalid="ignore"):
            return self.right.unpack(data, count) * np.float32(1e38)


class OneForNothing(Wrapped):
    def unpack(self, data: bytes, count: int) -> Vector:
        return self.right.unpack(data, count) + np.float32(1)


@pytest.mark.parametrize(
    ("codec", "promise"),
    [
        (Padded(Float16()), "bytes are read that `pack` does not write"),
        (Crashing(Float16()), "foreign bytes raise IndexError"),
        (Longer(Float16()), "above bytes_max"),
        (Halving(Float16()), "still missing after 400 turns"),
        (Random(Float16()), "gives other bytes"),
        (Overflowing(Float16()), "not finite"),
        (OneForNothing(Float16()), "nothing becomes something"),
    ],
)
def test_a_broken_codec_is_told_which_promise_it_broke(codec: Any, promise: str) -> None:
    with pytest.raises(ConformanceError, match=promise):
        check_codec(codec)


# Robust rules


def as_rule(merge: Any) -> Any:
    def rule(
        rows: Sequence[Vector], weights: Sequence[int], digests: Sequence[bytes],
        *, origin: Vector, liars: int,
    ) -> Vector:  # fmt: skip
        return merge(rows, weights, digests, origin, liars)

    return rule


def without_refusal(rows: Any, weights: Any, digests: Any, origin: Any, liars: int) -> Vector:
    fewer = min(liars, (len(rows) - 1) // 2)
    return rule_of("trimmed_mean")(rows, weights, digests, origin=origin, liars=fewer)


def test_the_mean_withstands_nobody() -> None:
    rule = as_rule(lambda rows, weights, digests, *_: weighted_mean(rows, weights, digests))
    with pytest.raises(ConformanceError, match=r"1 liars of 7 who send .* times as far"):
        check_robust_rule(rule, n=7, liars=1)


@pytest.mark.parametrize(
    ("rule", "promise"),
    [
        (without_refusal, "4 liars of 7 are not refused"),
        (lambda rows, *_: rows[0], "another order of the inputs"),
        (lambda rows, *_: np.median(rows, axis=0).astype(float), "float64"),
        (lambda *given: given[3], "do not get what they agree on"),
    ],
)
def test_a_broken_rule_is_told_which_promise_it_broke(rule: Any, promise: str) -> None:
    with pytest.raises(ConformanceError, match=promise):
        check_robust_rule(as_rule(rule), n=7, liars=1)


# Personalisations


class Leaking(Wrapped):
    """Leaves its own layers in what the next training starts from."""

    def before(self, site: LocalSite, memory: Any, /) -> None:
        """Put nothing back."""


class Hoarding(Wrapped):
    def after(self, site: LocalSite, shared: Vector, memory: Any, /) -> Any:
        del site, shared, memory
        turn = self.__dict__.setdefault("turn", [])
        turn.append(1)
        return {"turn": np.array(len(turn))}


class Spoiling(Wrapped):
    def adapt(self, site: LocalSite, shared: Vector, memory: Any, validation: Any, /) -> Any:
        load(site.module, shared, site.layout)
        shared[:] = 0
        return self.right.adapt(site, shared, memory, validation)


def test_a_broken_personalisation_is_told_which_promise_it_broke() -> None:
    with pytest.raises(ConformanceError, match="depends on what its module held before"):
        check_personalisation(
            lambda module: Leaking(FedBn(start=home_arrays(module))),  # type: ignore[arg-type, return-value]
            layout_of=lambda module: Layout.of(module, home=home_names(module)),
        )
    with pytest.raises(ConformanceError, match="leaves another memory"):
        check_personalisation(lambda _: Hoarding(Shared()))  # type: ignore[arg-type, return-value]
    with pytest.raises(ConformanceError, match="shared model was changed in place"):
        check_personalisation(lambda _: Spoiling(Shared()))  # type: ignore[arg-type, return-value]
