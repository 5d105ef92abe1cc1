"""Variants of a scenario from the command line: `name=table.key=value,table.key=value`.

Room: scenarios. Law: a variant is charter settings, nothing else; the same seeds and hospitals for all.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ledger.errors import ConfigError
from node.charter_edit import parse_assignment
from scenarios.spec import MAIN_VARIANT, SIMULATED, ScenarioSpec, Targets, Variant

EXAMPLE: Final = "k50=training.local_steps=50"
ROUNDS: Final = "rounds.rounds"
MODEL: Final = "model.name"


def parse_variant(text: str) -> Variant:
    """Read one `--variant`. Raises ConfigError that shows an example."""
    name, equals, settings = text.partition("=")
    if not equals or not name.strip() or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"--variant {text}: write it as NAME=KEY=VALUE, like {EXAMPLE}")
    values = dict(parse_assignment("--variant", one) for one in _split(settings))
    if not values:
        raise ConfigError(f"--variant {text}: names no setting; write it like {EXAMPLE}")
    rounds = values.pop(ROUNDS, None)
    if rounds is not None and (type(rounds) is not int or rounds < 1):
        raise ConfigError(f"--variant {text}: {ROUNDS} needs a whole number of rounds")
    return Variant(
        name=name.strip(), charter=values, rounds=rounds, model=str(values.pop(MODEL, ""))
    )


def compared(spec: ScenarioSpec, texts: Sequence[str]) -> list[tuple[str, ScenarioSpec]]:
    """Return the scenario itself and the variants asked for; without any, those that it names.

    Quality is shown side by side, not judged, so quality targets are dropped.
    Raises ConfigError when there is nothing to compare, or two have one name.
    """
    variants = [parse_variant(text) for text in texts] or list(spec.variants)
    if not variants:
        raise ConfigError(f"{spec.name} names no variants: give --variant, like {EXAMPLE}")
    known = {one.name: one for one in spec.variants}
    names = [MAIN_VARIANT, *(one.name for one in variants)]
    if len(set(names)) < len(names):
        raise ConfigError(f"--variant: two have the same name, or one is {MAIN_VARIANT}")
    free = Targets(auc_over_alone_min=-1.0, auc_under_pooled_max=1.0)
    main = replace(spec, engine=SIMULATED, targets=free, variants=())
    chosen = [main.varied(known.get(one.name, one) if not texts else one) for one in variants]
    return [
        (MAIN_VARIANT, main),
        *(
            (one.name, replace(two, targets=free))
            for one, two in zip(variants, chosen, strict=True)
        ),
    ]


def _split(settings: str) -> list[str]:
    """Cut at commas that stand outside of brackets and quotes."""
    parts: list[str] = [""]
    depth, quoted = 0, False
    for sign in settings:
        quoted ^= sign == '"'
        depth += 0 if quoted else (sign in "[{") - (sign in "]}")
        if sign == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return [part for part in parts if part.strip()]
