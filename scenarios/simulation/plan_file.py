"""A plan as a line of JSON, so that one that failed can be run for ever, however plans come to be drawn.

Room: scenarios. Every value of a plan is a frozen dataclass, a tuple, a number, a word or None: a dataclass
is an object that names its class.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from ledger.errors import ConfigError
from node.network_memory import Conditions
from scenarios.simulation.faults import Fault, Liar
from scenarios.simulation.plan import Plan

PLAN_BYTES_MAX: Final = 1 << 20
_CLASSES: Final[Mapping[str, type[Any]]] = {
    one.__name__: one for one in (Plan, Liar, Conditions, *get_args(Fault))
}


def plan_to_json(plan: Plan) -> str:
    """Return a plan as one line."""
    return json.dumps(_written(plan), separators=(",", ":"))


def plan_of_json(text: str, *, source: str) -> Plan:
    """Return the plan that a line holds. Raises ConfigError, which names ``source``."""
    try:
        plan = _read(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{source}: not a plan of this version ({error})") from None
    if not isinstance(plan, Plan):
        raise ConfigError(f"{source}: not a plan")
    return plan


def load_plan(path: Path) -> Plan:
    """Read a plan from a file. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(PLAN_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"--plan {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--plan {path}: not text") from None
    if len(text) > PLAN_BYTES_MAX:
        raise ConfigError(f"--plan {path}: over {PLAN_BYTES_MAX} bytes")
    return plan_of_json(text, source=f"--plan {path}")


def _written(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        named = {one.name: _written(getattr(value, one.name)) for one in fields(value)}
        return {"is": type(value).__name__} | named
    return [_written(one) for one in value] if isinstance(value, tuple) else value


def _read(value: object) -> object:
    if isinstance(value, dict):
        given = {name: _read(one) for name, one in value.items() if name != "is"}
        kind = _CLASSES[value["is"]]
        for name, hint in get_type_hints(kind).items():
            if name in given and not _fits(given[name], hint):
                raise ValueError(f"{name} of {kind.__name__}: {given[name]!r}")
        return kind(**given)
    return tuple(map(_read, value)) if isinstance(value, list) else value


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is what a field says, of the few types that plans are made of."""
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(one, get_args(hint)[0]) for one in value)
    kinds = get_args(hint) or (hint,)
    return isinstance(value, (*kinds, int) if float in kinds else kinds)
