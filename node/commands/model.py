"""model export, model evaluate: the agreed model, as a file. Room: node."""

from pathlib import Path
from typing import Annotated

import typer

from node.commands.common import SITE_DEFAULT, AsJson, ConfigPath, note, open_site, say, say_json

app = typer.Typer(help="Take the agreed model out, and measure it.", no_args_is_help=True)

ModelPath = Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="The model's file.")]


@app.command("export")
def export_(
    *,
    file: ModelPath,
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write the newest agreed model with its round, digest and participants.

    \b
    Example:
      swarm-node model export model.safetensors --config site.toml
    """  # noqa: D301
    from node.model_files import export_model

    metadata = export_model(open_site(config), file)
    if as_json:
        say_json({"file": str(file), **metadata.to_json()})
        return
    say(str(file))
    names = ", ".join(
        f"{who.name} {who.weight_micro / 10_000:.1f} %" for who in metadata.participants
    )
    note(f"round {metadata.round}, digest {metadata.digest}, made from {names}")


@app.command()
def evaluate(
    *,
    file: ModelPath,
    data: Annotated[
        list[str], typer.Option(help="CSV or Parquet with the charter's columns. Repeatable.")
    ],
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Measure an exported model on rows that no site trained on, with 95 % intervals.

    Gaps in the rows are filled with this site's own medians.

    \b
    Example:
      swarm-node model evaluate model.safetensors --data test.csv --config site.toml
    """  # noqa: D301
    from node.model_files import evaluate_model

    result = evaluate_model(open_site(config), file, data)
    if as_json:
        say_json(result.to_json())
        return
    say(f"{result.rows} rows, model of round {result.round}, digest {result.digest}")
    for metric in result.metrics:
        interval = f"95 % interval {metric.low:.4f} to {metric.high:.4f}"
        if metric.is_bound:
            interval = "or more: larger than a ledger can say; the model has diverged, or the unit is small"
        say(f"{metric.name:<10} {metric.value:8.4f}   {interval}")
