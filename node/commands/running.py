"""run, status, export: a site that takes part. Room: node."""

from pathlib import Path
from typing import Annotated

import typer

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

WATCH_INTERVAL_S = 1.0


def run(
    *,
    config: ConfigPath = SITE_DEFAULT,
    linger: Annotated[
        float | None, typer.Option(help="Seconds to stay after the last round for others.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    set_: SetValues = None,
    as_json: AsJson = False,
) -> None:
    """Join, train and average until the charter's rounds are done, or until stopped.

    Ctrl-C (or SIGTERM) finishes the write and leaves cleanly with status 0; a second one stops at
    once. Started again, it continues where it was. With --json it ends by printing its status.

    \b
    Examples:
      swarm-node run --config site.toml
      swarm-node run --config site.toml --linger 60 --set run.threads=4
    """  # noqa: D301
    overrides = split_overrides(set_)
    if linger is not None:
        overrides["run.linger_s"] = repr(linger)
    if log_level is not None:
        overrides["run.log_level"] = log_level
    site = open_site(config, overrides)
    from node.run import run_site

    status = run_site(site)
    if as_json:
        from node.status import read_status

        say_json(read_status(site))
    if status:
        raise typer.Exit(status)


def leave(
    *,
    config: ConfigPath = SITE_DEFAULT,
    set_: SetValues = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Leave this federation for good: close the own log, until others have heard it.

    Nobody waits for this site any more; if the charter requires it, or too few stay for its
    `members_min`, the others cannot go on. It cannot take part again until a quorum of admins rotates it
    (`roster propose rotate`); to pause, only stop its node. It still counts in how many make a quorum until they
    remove it (`roster propose remove`). Stop the node before.

    \b
    Examples:
      swarm-node leave --config site.toml
      swarm-node leave --config site.toml --yes --json
    """  # noqa: D301
    site = open_site(config, split_overrides(set_))
    if not yes:
        typer.confirm(f"{site.name} leaves for good?", abort=True, err=True)
    from node.run import run_site

    result = run_site(site, leaves=True)
    if as_json:
        from node.status import read_status

        say_json(read_status(site))
    if result:
        raise typer.Exit(result)


def status(
    *,
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="The site's directory, instead of --config."),
    ] = None,
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
) -> None:
    """Say where a site stands: from its running node, else from its store.

    Each member is registered (on the roster), configured (has signed the charter), training
    (contributes now), merged (in the newest agreed result): four different things.

    \b
    Examples:
      swarm-node status anna
      swarm-node status --config site.toml --json
      swarm-node status --watch
    """  # noqa: D301
    from node.status import read_status
    from node.status_view import show, show_forever

    site = open_site(directory or config)
    if watch:
        show_forever(lambda: read_status(site), as_json=as_json, interval_s=WATCH_INTERVAL_S)
    elif as_json:
        say_json(read_status(site))
    else:
        show(read_status(site))


def export(
    *,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new directory for the bundle.")
    ],
    config: ConfigPath = SITE_DEFAULT,
    payloads: Annotated[
        bool,
        typer.Option("--payloads", help="Also copy the models that it names, to DIR.payloads."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the ledger bundle for auditors; works while the node runs.

    The bundle holds the charter and everybody's signed records: no key, no model, no patient.
    Payloads are models, which may reveal more: they go to a directory of their own. A node keeps
    those of the newest rounds; for all of them set storage.keep_rounds = "all" before it runs.

    \b
    Examples:
      swarm-node export bundle --config site.toml && swarm-audit verify bundle --charter charter.toml
      swarm-node export bundle --payloads && swarm-audit verify bundle --recompute bundle.payloads
    """  # noqa: D301
    from ledger.bundle import export_bundle
    from ledger.roster_store import lacking, load_roster
    from ledger.store import Store
    from node.config import load_site_charter
    from node.payload_export import export_payloads, payloads_beside

    site = open_site(config)
    charter = load_site_charter(site)
    _require_ledger(site.paths.ledger)
    copied = None
    with Store.open(site.paths.ledger, read_only=True) as store:
        path = export_bundle(store, charter.source_bytes, directory)
        roster = load_roster(store, charter)
        warnings = [
            f'this site holds {held} of the {cut.kept} records of "{roster.member(cut.author).name}" '
            "that a roster update keeps: alone this bundle will be refuted (E_OMISSION); export "
            "again when the node has caught up, or give the auditor another hospital's bundle too"
            for cut, held in lacking(store, roster).items()
        ]
        if payloads:
            copied = export_payloads(store, site.paths.blobs, payloads_beside(path))
    if as_json:
        shown = {
            "bundle": str(path), "charter_digest": charter.digest_hex, "warnings": warnings,
        }  # fmt: skip
        say_json(shown if copied is None else {**shown, "payloads": copied.to_json()})
    else:
        say(str(path))
        if copied is not None:
            say(str(copied.directory))
            note(
                f"{copied.copied} payloads copied; {copied.absent} that are named are not kept here"
            )
        for warning in warnings:
            note(f"Careful: {warning}")
        note(f"Auditors need the charter's digest from someone they trust: {charter.digest_hex}")


def _require_ledger(path: Path) -> None:
    from ledger.errors import ConfigError

    if not path.exists():
        raise ConfigError(f"{path} does not exist: this site has not run yet")
