"""The only door for a hospital's own Python code: models and data sources.

Room: learning. Law 8: no class name that comes from a peer is imported. The charter may name
`python:` code, but it loads only from packages that the site's own configuration allows.
Knows no tensor, so a node may ask here without importing torch.
"""

import importlib
from collections.abc import Sequence
from typing import Any

from ledger.errors import ConfigError

PYTHON = "python:"


def split_reference(reference: str, *, key: str) -> tuple[str, str]:
    """Return module and name of a reference. Raises ConfigError if it does not look like one."""
    module_name, _, attribute = reference.removeprefix(PYTHON).partition(":")
    if not reference.startswith(PYTHON) or not module_name or not attribute.isidentifier():
        raise ConfigError(f'{key}: "{reference}" must look like "python:package.module:name"')
    return module_name, attribute


def load_own(reference: str, *, allow: Sequence[str], key: str) -> Any:
    """Import what `python:package.module:name` names, if its top package is allowed.

    key: the configuration key, for the message. Raises ConfigError otherwise.
    """
    module_name, attribute = split_reference(reference, key=key)
    top = module_name.partition(".")[0]
    if top not in allow:
        raise ConfigError(
            f'{key}: code from package "{top}" is not allowed at this site; '
            f'read it, then add "{top}" to allow in site.toml'
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # own code may raise anything
        raise ConfigError(
            f'{key}: cannot import "{module_name}": {type(error).__name__}: {error}'
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigError(f'{key}: module "{module_name}" has no "{attribute}"') from None
