"""metrics: how the model does in each hospital, in all together, and by subgroup. Room: node."""

from typing import Annotated, Any

import typer

from node.commands.common import SITE_DEFAULT, AsJson, ConfigPath, note, open_site, say, say_json


def metrics(
    *,
    round_: Annotated[
        int | None, typer.Option("--round", min=1, help="Of this round; else of the newest.")
    ] = None,
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show what every hospital measured on its own patients, and the mean over all, with 95 % intervals.

    \b
    Examples:
      swarm-node metrics --config site.toml
      swarm-node metrics --round 5 --json
    """  # noqa: D301
    from node.measured import read_measured

    found = read_measured(open_site(config), round_)
    if as_json:
        say_json(found)
        return
    ending = f", training stopped: round {found['stopped_round']}" if found["stopped_round"] else ""
    say(f"round {found['round']} (released: round {found['released_round']}{ending})")
    for member in found["members"]:
        _show(member["name"], member["metrics"])
    _show(f"all {len(found['members'])}, by patients", found["pooled"])
    for group in found["subgroups"]:
        _show(group["subgroup"], group["metrics"])
    note("each hospital measured itself; nobody can check that without its patients")


def _show(name: str, values: dict[str, Any]) -> None:
    shown = "  ".join(
        f"{metric} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
        for metric, one in values.items()
    )
    count = max((one["count"] for one in values.values()), default=0)
    say(f"{name:<24} n {count:<6} {shown or 'nothing that may be published'}")
