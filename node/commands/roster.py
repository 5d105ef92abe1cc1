"""roster propose, sign, submit, show: hospitals that join, leave or start anew. Room: node."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.commands.common import (
    SITE_DEFAULT,
    AsJson,
    ConfigPath,
    note,
    open_site,
    refuse_existing,
    say,
    say_json,
)

if TYPE_CHECKING:
    from ledger.roster_update import Update
    from node.config import SiteConfig
    from node.roster_files import Known

app = typer.Typer(
    help="Add, remove or rotate a hospital, by a quorum of offline admin keys.",
    no_args_is_help=True,
)
propose = typer.Typer(
    help="Write a change to a file, for the admins to sign.", no_args_is_help=True
)
app.add_typer(propose, name="propose")

Out = Annotated[
    Path | None, typer.Option("--out", help="The file; default roster-NNNN.update.", metavar="FILE")
]
MemberFile = Annotated[
    Path, typer.Option("--member", help="The member.toml that its init wrote.", metavar="FILE")
]
Kept = Annotated[
    int | None, typer.Option(help="Records of its log that stay; default: all that this site has.")
]
Version = Annotated[
    int | None,
    typer.Option("--version", help="Number of the new roster; a higher one gives up a split vote."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The hospital, as the roster names it.")]
UpdateFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="The update, e.g. roster-0001.update.")
]


@propose.command()
def add(
    *,
    member: MemberFile,
    out: Out = None,
    version: Version = None,
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Propose that a hospital joins.

    \b
    Example:
      swarm-node roster propose add --member dora/member.toml --config site.toml
    """  # noqa: D301
    from node.roster_files import known_to_site, propose_add, read_member

    known = known_to_site(open_site(config))
    _write(known, propose_add(known, read_member(member), version=version), out, as_json=as_json)


@propose.command()
def remove(
    *,
    name: Name,
    kept: Kept = None,
    out: Out = None,
    version: Version = None,
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Propose that a hospital leaves for good. Its records up to now stay.

    \b
    Example:
      swarm-node roster propose remove "St. Anna" --config site.toml
    """  # noqa: D301
    from node.roster_files import known_to_site, propose_remove

    known = known_to_site(open_site(config))
    update = propose_remove(known, name, kept=kept, version=version)
    _write(known, update, out, as_json=as_json)


@propose.command()
def rotate(
    *,
    name: Name,
    member: Annotated[
        Path | None,
        typer.Option(
            "--member",
            help="The member.toml of its new directory; without it, this site's next key.",
            metavar="FILE",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Another hospital's exported bundle, where this site has lost its ledger.",
            metavar="DIR",
        ),
    ] = None,
    kept: Kept = None,
    out: Out = None,
    version: Version = None,
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Propose that a hospital starts anew in its next epoch: lost key, lost ledger, forked log.

    Its admin key stays. Name, role and admin key of the new block are not used. A site that has lost
    its ledger and still has its seed proposes it with a bundle that another hospital exported.

    \b
    Examples:
      swarm-node roster propose rotate "St. Anna" --bundle bundle-of-berta --config site.toml
      swarm-node roster propose rotate "St. Anna" --member anna-2/member.toml --config site.toml
      swarm-node roster propose rotate "St. Anna" --config site.toml
    """  # noqa: D301
    from node.roster_files import known_to_site, next_member, propose_rotate, read_member

    site = open_site(config)
    known = known_to_site(site) if bundle is None else _known_to(bundle, site)
    block = next_member(site, known, name) if member is None else read_member(member)
    update = propose_rotate(known, name, block, kept=kept, version=version)
    _write(known, update, out, as_json=as_json)


def _known_to(bundle: Path, site: "SiteConfig") -> "Known":
    """Read a bundle of this site's federation. Raises ConfigError."""
    from ledger.errors import ConfigError
    from node.config import load_site_charter
    from node.roster_files import known_with_logs

    known = known_with_logs(bundle)
    if known.charter.digest_hex != load_site_charter(site).digest_hex:
        raise ConfigError(f"{bundle}: is of another charter: give a bundle of this federation")
    return known


def _write(known: "Known", update: "Update", out: Path | None, *, as_json: bool) -> None:
    from ledger.roster_update import SignedUpdate
    from node.roster_files import write_update
    from node.roster_words import proposal

    file = out or Path(f"roster-{update.version:04d}.update")
    refuse_existing(file)
    signed = SignedUpdate(update.to_bytes(), ())
    write_update(file, signed)
    _say_proposal({"file": str(file), **proposal(known.roster, signed, update)}, as_json=as_json)
    if not as_json:
        note(f"Next: each admin, offline: `swarm-node roster sign {file} --admin-seed …`")


def _say_proposal(values: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(values)
        return
    from node.charter_edit import group_digest

    say(f"{values['file']}: roster {values['version']}: {values['change']}")
    for line in group_digest(values["digest"]):
        say(f"  {line}")
    who = ", ".join(values["signed_by"]) or "nobody"
    say(f"  signed by {who}; {values['missing']} more of {values['needed']} needed")
    note("Compare the digest by phone before anyone signs: a key signs once for each version.")


@app.command()
def sign(
    *,
    file: UpdateFile,
    admin_seed: Annotated[
        Path, typer.Option(help="The admin key's seed file, from its safe.", metavar="FILE")
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="An exported bundle, where there is no site: an offline machine.", metavar="DIR"
        ),
    ] = None,
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Add one admin signature. Refuses a second update for the same version.

    What was signed is noted beside the seed (admin.seed.signed): keep the two together.

    \b
    Examples:
      swarm-node roster sign roster-0001.update --admin-seed admin.seed --bundle bundle
      swarm-node roster sign roster-0001.update --admin-seed keys/admin.seed --config site.toml
    """  # noqa: D301
    from node.roster_files import known_to_bundle, known_to_site, read_update, sign_file
    from node.roster_words import proposal

    known = known_to_site(open_site(config)) if bundle is None else known_to_bundle(bundle)
    signed, author = sign_file(file, known, admin_seed)
    _, update = read_update(file)
    values = {"file": str(file), **proposal(known.roster, signed, update)}
    _say_proposal(values, as_json=as_json)
    if not as_json:
        note(f'signed for "{known.roster.member(author).name}"')


@app.command()
def submit(*, file: UpdateFile, config: ConfigPath = SITE_DEFAULT, as_json: AsJson = False) -> None:
    """Hand an update with enough signatures to this site; its node tells all others.

    \b
    Example:
      swarm-node roster submit roster-0001.update --config site.toml
    """  # noqa: D301
    from node.roster_files import submit_file

    roster, stored = submit_file(file, open_site(config))
    names = [member.name for member in roster.active]
    if as_json:
        say_json({"version": roster.version, "stored": stored, "members": names})
        return
    say(f"roster {roster.version}: {', '.join(names)}")
    note(
        "stored; it travels to the others when the node runs"
        if stored
        else "the running node takes it within seconds, and restarts with it"
    )


@app.command()
def show(
    *,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="An update that is not in force yet.")
    ] = None,
    config: ConfigPath = SITE_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Print the history of the roster in words, and who signed; or what is in a file.

    \b
    Examples:
      swarm-node roster show --config site.toml
      swarm-node roster show roster-0001.update
    """  # noqa: D301
    from node.roster_files import known_to_site, read_update
    from node.roster_words import history, proposal

    known = known_to_site(open_site(config))
    if file is not None:
        signed, update = read_update(file)
        _require_next(file, known, update)
        values = {"file": str(file), **proposal(known.roster, signed, update)}
        _say_proposal(values, as_json=as_json)
        return
    versions = list(history(known.charter, known.updates))
    if as_json:
        say_json({"versions": versions})
        return
    for one in versions:
        say(f"roster {one['version']}: {one['change']}")
        if one["signed_by"]:
            say(f"  signed by {', '.join(one['signed_by'])}")
        say(f"  {one['n']} members, liars tolerated {one['f']}, quorum {one['q']}")
        say(f"  digest {one['digest']}")


def _require_next(file: Path, known: "Known", update: "Update") -> None:
    from ledger.errors import ConfigError, VerificationError
    from ledger.roster_update import apply

    try:
        apply(known.roster, update)
    except VerificationError as error:
        raise ConfigError(f"{file}: does not continue this site's roster: {error}") from None
