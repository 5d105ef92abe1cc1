"""reputation: how everybody takes part, by this site's own ledger. Room: node."""

from typing import Annotated

import typer

from node.commands.common import SITE_DEFAULT, AsJson, ConfigPath, open_site, say, say_json


def reputation(
    *,
    config: ConfigPath = SITE_DEFAULT,
    member: Annotated[
        str | None, typer.Option(help="Every round of this one: its name or number.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what the ledger shows of each member: reputation, doubts, and what would clear them.

    The numbers are recomputed from this site's ledger; swarm-audit reputation gets the same from its
    bundle. Nobody is ever removed by them: removal is a roster update that members sign.

    \b
    Examples:
      swarm-node reputation --config site.toml
      swarm-node reputation --member "St. Anna"
      swarm-node reputation --json
    """  # noqa: D301
    from ledger.errors import ConfigError
    from ledger.reputation_report import as_json as reputation_json
    from ledger.reputation_report import as_lines
    from ledger.roster_store import load_roster
    from ledger.signal_report import as_json as signals_json
    from ledger.signal_report import doubt_lines, timeline_lines
    from ledger.store import Store
    from node.config import load_site_charter
    from node.overview import stored_insight

    site = open_site(config)
    charter = load_site_charter(site)
    if not site.paths.ledger.exists():
        raise ConfigError(f"{site.paths.ledger} does not exist: this site has not run yet")
    with Store.open(site.paths.ledger, read_only=True) as store:
        roster = load_roster(store, charter)
    insight = stored_insight(site.paths.ledger, roster, charter)
    if as_json:
        say_json({**reputation_json(insight.reputation), "signals": signals_json(insight.signals)})
        return
    names = {one.index: one.name for one in roster.members}
    number = _number(member, names)
    if charter.reputation.mode == "off":
        say("the charter says reputation.mode = off: nobody scores, so only proven offences count")
    for line in as_lines(insight.reputation, names, member=number):
        say(line)
    chosen = [one for one in insight.signals if number in (None, one.member)]
    timelines = chosen if number is not None else []
    for line in (line for one in timelines for line in timeline_lines(one)):
        say(line)
    for line in doubt_lines(chosen, names):
        say(line)


def _number(member: str | None, names: dict[int, str]) -> int | None:
    """Return the number of a member that was named by name or number. Raises ConfigError."""
    from ledger.errors import ConfigError

    if member is None:
        return None
    found = [index for index, name in names.items() if member in (name, str(index))]
    if not found:
        raise ConfigError(f"--member {member}: no member has this name or number")
    return found[0]
