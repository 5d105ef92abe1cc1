"""A hospital's own Python function as the data source: images, signals, anything torch can read.

Room: node. Law: the code is the hospital's and local; it runs only when site.toml allows its
package. Its tensors go to the model as they are.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path

from ledger.charter import Schema
from ledger.errors import ConfigError
from node.data_checks import ROWS_MIN
from node.data_config import DataConfig
from swarm.learning.dataset import ExampleSet, SiteData
from swarm.learning.own_code import load_own


def read_own_sets(
    config: DataConfig, schema: Schema, *, directory: Path, allow: Sequence[str]
) -> SiteData:
    """Call `make_dataset()`, or `make_dataset(directory=…)` where it asks for the site's directory.

    It returns (train, validation), two torch Datasets of known length whose items are (x, y).
    Raises ConfigError when the charter has features, or the function fails or gives anything else.
    """
    reference = config.own_code or ""
    if schema.features:
        raise ConfigError(
            "data.source: a python: source has no columns, but the charter lists "
            f"{len(schema.features)} features; use a table, or a charter without [[data.features]]"
        )
    function = load_own(reference, allow=allow, key="data.source")
    try:
        asks = "directory" in inspect.signature(function).parameters
        made = function(directory=directory) if asks else function()
    except Exception as error:  # own code may raise anything; its text may quote patients
        raise ConfigError(f"data.source: {reference} failed with {type(error).__name__}") from error
    if not isinstance(made, tuple) or len(made) != 2:
        raise ConfigError(f"data.source: {reference} must return (train, validation)")
    for part, examples in zip(("train", "validation"), made, strict=True):
        if not isinstance(examples, ExampleSet):
            raise ConfigError(
                f"data.source: {part} of {reference} is a {type(examples).__name__}; need a torch "
                "Dataset with __len__ and __getitem__"
            )
    train, validation = made
    if len(train) < ROWS_MIN:
        raise ConfigError(
            f"data.source: {len(train)} training examples are too few; at least {ROWS_MIN}"
        )
    return SiteData(train=train, validation=validation)
