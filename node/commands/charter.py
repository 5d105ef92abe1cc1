"""charter new, add, show, digest: what all hospitals sign. Room: node."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.commands.common import (
    AsJson,
    note,
    refuse_existing,
    say,
    say_json,
    write_text,
)

if TYPE_CHECKING:
    from ledger.roster import Roster

app = typer.Typer(
    help="Assemble, read and compare the charter that all members sign.", no_args_is_help=True
)

CharterPath = Annotated[
    Path, typer.Argument(metavar="FILE", help="The charter, e.g. charter.toml.")
]


@app.command()
def new(  # noqa: PLR0913 - one parameter an option
    *,
    file: CharterPath,
    federation: Annotated[str, typer.Option(help="Name of the federation.")],
    rounds: Annotated[int, typer.Option(help="Rounds of training.")],
    label: Annotated[str, typer.Option(help="Column to predict.")],
    model: Annotated[
        str, typer.Option(help="logistic, mlp, cnn or python:package.module:Class.")
    ] = "logistic",
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            help="Argument of the model, e.g. hidden=[128,64,32]. Repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="CSV or Parquet to infer columns from. Repeatable. None = own Python data sets."
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="binary, multiclass or regression; default: inferred.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column that names the patient; no feature.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any charter setting, e.g. training.learning_rate=0.05. Repeatable.",
            metavar="TABLE.KEY=VALUE",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented charter without members.

    \b
    Examples:
      swarm-node charter new charter.toml --federation readmission --data patients.csv \\
          --label readmitted --model mlp --model-arg hidden=[128,64,32] --rounds 20
      swarm-node charter new charter.toml --federation skin --label lesion --head binary \\
          --set 'data.classes=["benign","malignant"]' --model python:our_models:Net --rounds 10
    """  # noqa: D301
    from node.charter_edit import CharterDraft, assemble, check_model, parse_assignment

    refuse_existing(file)
    table, comments = _data_table(data, label=label, head=head, group=group)
    text = assemble(
        CharterDraft(
            federation=federation,
            model=model,
            model_arguments=dict(parse_assignment("--model-arg", one) for one in model_arg or ()),
            data=table,
            data_comments=comments,
            rounds=rounds,
            settings=dict(parse_assignment("--set", one) for one in set_ or ()),
        )
    )
    check_model(text)
    write_text(file, text)
    if as_json:
        say_json({"file": str(file), "federation": federation, "left_out": comments[1:]})
        return
    note(f"wrote {file}")
    for comment in comments:
        note(f"  {comment}")
    if data:
        note(
            "Review it before sending: class and category names come from your patients' table. "
            "Add what other sites use, remove what nobody should see."
        )
    note(f"Next: `swarm-node charter add {file} MEMBER.toml …` with every site's member.toml")


@app.command()
def add(
    *,
    file: CharterPath,
    members: Annotated[list[Path], typer.Argument(metavar="MEMBER.toml…", help="Blocks to add.")],
    as_json: AsJson = False,
) -> None:
    """Add members' blocks to a charter. Any change makes another federation.

    \b
    Example:
      swarm-node charter add charter.toml anna/member.toml berta/member.toml
    """  # noqa: D301
    from ledger.charter import CHARTER_BYTES_MAX
    from node.charter_edit import append_members
    from node.charter_words import plural
    from node.config import read_file

    def read(path: Path, what: str) -> bytes:
        return read_file(path, bytes_max=CHARTER_BYTES_MAX, what=what)

    before = read(file, "charter")
    blocks = [(path, read(path, "member block")) for path in members]
    text, charter = append_members(before, blocks, file=file.name)
    write_text(file, text)
    if as_json:
        who = [member.name for member in charter.members]
        say_json({"file": str(file), "members": who, "digest": charter.digest_hex})
        return
    names = ", ".join(member.name for member in charter.members)
    note(f"{file} now has {plural(len(charter.members), 'member')}: {names}")
    note(
        "Any change makes another federation: send the file to all once it is complete, then "
        f"compare `swarm-node charter digest {file}` by phone"
    )


@app.command()
def show(
    *,
    file: CharterPath,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="An exported bundle, for the members of now instead of the charter's.",
            metavar="DIR",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say in words what a charter means.

    Members may have joined, left or changed keys since: `swarm-node roster show` tells their
    history, and --bundle takes those of now.

    \b
    Examples:
      swarm-node charter show charter.toml
      swarm-node charter show charter.toml --bundle bundle --json
    """  # noqa: D301
    from ledger.roster import Roster
    from node.charter_words import describe, parameter_count
    from node.config import load_charter_file

    charter = load_charter_file(file, complete=False)
    roster = Roster.from_charter(charter)
    if bundle is not None:
        roster = _roster_of(bundle, charter.digest_hex)
    chapters = describe(charter, roster)
    if as_json:
        say_json(
            {
                "federation": charter.federation,
                "digest": charter.digest_hex,
                "members": [member.name for member in roster.active],
                "roster": roster.version,
                "n": roster.n,
                "f": roster.f,
                "q": roster.q,
                "rounds": charter.rounds.rounds,
                "model": charter.model.name,
                "parameters": parameter_count(charter.model, charter.schema),
                "words": {chapter.heading: chapter.lines for chapter in chapters},
            }
        )
        return
    say(f"Federation {charter.federation}")
    for chapter in chapters:
        say(f"\n{chapter.heading}")
        for line in chapter.lines:
            say(f"  {line}")
    say(f"\nDigest {charter.digest_hex}")


@app.command()
def digest(*, file: CharterPath, as_json: AsJson = False) -> None:
    """Print a charter's digest in groups, to compare by phone before anyone joins.

    \b
    Example:
      swarm-node charter digest charter.toml
    """  # noqa: D301
    from node.charter_edit import group_digest
    from node.config import load_charter_file

    charter = load_charter_file(file)
    if as_json:
        say_json({"federation": charter.federation, "digest": charter.digest_hex})
        return
    for line in group_digest(charter.digest_hex):
        say(line)
    note(
        'When all sites read the same, pin it in site.toml: charter_digest = "…" (spaces may stay)'
    )


def _roster_of(bundle: Path, digest_hex: str) -> "Roster":
    """Return the roster in force in a bundle of this charter. Raises ConfigError."""
    from ledger.errors import ConfigError
    from node.roster_files import known_to_bundle

    known = known_to_bundle(bundle)
    if known.charter.digest_hex != digest_hex:
        raise ConfigError(f"{bundle}: is of another charter: give a bundle of this federation")
    return known.roster


def _data_table(
    data: list[str] | None, *, label: str, head: str | None, group: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the [data] table and comments on what was left out of it."""
    from node.charter_edit import schema_table

    if not data:
        return {"label": label, **({"head": head} if head else {})}, []
    from node.data import DataConfig, infer_schema

    source = data[0] if len(data) == 1 else tuple(data)
    schema, text = infer_schema(
        DataConfig(source=source, group=group), label, head, directory=Path.cwd()
    )
    left_out = [line[2:] for line in text.splitlines() if line.startswith("# left out")]
    return schema_table(schema), [
        "Inferred from one site's table: check the names below before sending this file.",
        *left_out,
    ]
