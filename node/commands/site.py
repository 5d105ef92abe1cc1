"""init, config, doctor: setting a site up. Room: node."""

from pathlib import Path
from typing import Annotated

import typer

from node.command_line import ExitStatus
from node.commands.common import (
    SITE_DEFAULT,
    AsJson,
    ConfigPath,
    SetValues,
    note,
    open_site,
    say,
    say_json,
    split_overrides,
)


def init(
    *,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new directory for this site.")
    ],
    name: Annotated[str, typer.Option(help="This hospital, as the others will see it.")],
    listen: Annotated[
        list[str] | None,
        typer.Option(help="Where the node listens. Repeatable; default /ip4/0.0.0.0/tcp/4001."),
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(help="Where the others dial it. Repeatable; none = it dials them."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="This site's CSV or Parquet, for site.toml. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a site: its keys, a commented site.toml, and the block to send to the others.

    \b
    Examples:
      swarm-node init anna --name "St. Anna" --address /dns4/swarm.anna.example/tcp/4001
      swarm-node init anna --name "St. Anna" --listen /ip4/0.0.0.0/tcp/4500
    """  # noqa: D301
    from node.setup_site import create_site

    sources = [
        str(Path(source).resolve()) if ":" not in source else source for source in data or ()
    ]
    site = create_site(directory, name=name, listen=listen, addresses=address, sources=sources)
    if as_json:
        say_json(
            {
                "directory": str(site.paths.directory),
                "site": str(site.site_file),
                "member": str(site.paths.member),
                "seed": str(site.paths.seed),
                "admin_seed": str(site.paths.admin_seed),
                "member_block": site.member_block,
            }
        )
        return
    say(site.member_block.rstrip("\n"))
    note(
        f"\nThe block above is public and also in {site.paths.member}: send it to whoever "
        "assembles the charter.\n"
        f"Secret, for this machine alone: {site.paths.seed}\n"
        f"Secret, move it offline now (a safe, not a backup): {site.paths.admin_seed}"
    )
    if not site.addresses:
        note(
            "No address was given, so others cannot dial this site; it will dial them. "
            "If it can be reached, add addresses to member.toml before sending it."
        )
    for source in sources:
        if (
            ":" not in source
            and not any(mark in source for mark in "*?[")
            and not Path(source).exists()
        ):
            note(f"There is no {source} yet: put the table there, or correct data.source.")
    note(
        f"Next: set [data] in {site.site_file}, put the charter beside it, then "
        f"`swarm-node doctor --config {site.site_file}`"
    )


def config(
    *,
    config: ConfigPath = SITE_DEFAULT,
    set_: SetValues = None,
    effective: Annotated[
        bool,
        typer.Option("--effective", help="Defaults, file and --set merged (this is all it does)."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Print every setting in force and where it came from.

    \b
    Examples:
      swarm-node config --effective --config site.toml
      swarm-node config --effective --set run.threads=4
    """  # noqa: D301
    from node.config import effective as merged

    _ = effective
    site = open_site(config, split_overrides(set_))
    if as_json:
        values = {
            key: {"value": value, "origin": site.origins.get(key, "default")}
            for key, value in site.settings.items()
        }
        say_json(values)
    else:
        say(merged(site).rstrip("\n"))


def doctor(
    *,
    config: ConfigPath = SITE_DEFAULT,
    set_: SetValues = None,
    offline: Annotated[bool, typer.Option("--offline", help="Dial nobody.")] = False,
    network: Annotated[
        bool,
        typer.Option("--network", help="Only who reaches whom: why not, and who changes what."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything before the first run: one line each, with what to change.

    With --network also while the node runs, which is then asked: every pair of members, with what the
    others say of each other. Exit status 0 if nothing fails (warnings are fine), 1 if anything does.

    \b
    Examples:
      swarm-node doctor --config site.toml
      swarm-node doctor --offline --json
      swarm-node doctor --network
    """  # noqa: D301
    from node.doctor import Level, examine
    from node.doctor_network import examine_network

    overrides = split_overrides(set_)
    if network and offline:
        raise typer.BadParameter("--network dials the others, --offline forbids it")
    findings = (
        examine_network(config, overrides, use_site=open_site)
        if network
        else examine(config, overrides, offline=offline, use_site=open_site)
    )
    failed = False
    shown = []
    for finding in findings:
        failed |= finding.level is Level.FAIL
        if as_json:
            shown.append(finding.to_json())
        else:
            say(finding.line())
    if as_json:
        say_json({"ok": not failed, "findings": shown})
    if failed:
        raise typer.Exit(ExitStatus.FAILED)
