"""Why a node waits, in words for whoever runs it: a stall that is explained is half repaired."""

from collections.abc import Collection, Iterable

from swarm.protocol.round import Phase, RoundMachine


def why_waiting(machine: RoundMachine, *, connected: Collection[int]) -> str:
    """Return what the machine needs to go on, or an empty string while it works by itself.

    connected: members that are reached now.
    """
    book, roster, own = machine.book, machine.book.roster, machine.position.own
    everyone = {member.index for member in roster.active}

    def names(authors: Iterable[int]) -> str:
        return ", ".join(roster.member(author).name for author in sorted(authors))

    why = ""
    match machine.phase:
        case Phase.JOIN:
            missing = everyone - book.opened
            why = f"to sign the charter: {names(missing)}" if missing else "ledgers to be compared"
            if not connected and roster.n > 1:
                why = _alone(book.reached(own))
        case Phase.COLLECT:
            absent = machine.active() - set(book.offers(machine.round))
            if machine.near is not None:
                absent &= machine.near
            underway = [o.author for o in machine.usable() if not machine.has(o)]
            stray = [o.author for o in machine.stray()]
            required = machine.missing_required()
            parts = [f"required by the charter: {', '.join(required)}"] if required else []
            parts += [f"training: {names(absent)}"] if absent else []
            parts += [f"payload of {names(underway)}"] if underway else []
            parts += (
                [f"others than {names(stray)}, who began with an unagreed model"] if stray else []
            )
            few = f"(at least {machine.members_min} contribute)"
            kind = "members" if machine.near is None else "neighbours, itself included"
            why = "; ".join(parts) or f"more {kind} {few}"
        case Phase.AGREE if machine.near is None:
            why = "a proposal of which contributions to merge"
        case Phase.SETTLE:
            votes = list(book.votes(machine.round).values())
            most = max((votes.count(vote) for vote in votes), default=0)
            what = "results" if machine.round else "votes, then confirmations"
            why = f"equal {what}: {most} of {roster.q} needed"
        case Phase.CATCH_UP:
            why = f"the agreed model of round {machine.round}{_from_whom(machine, connected)}"
        case Phase.LINGER:
            why = f"to finish: {names(book.opened - book.closed - {own})}"
        case _:  # it works by itself
            pass
    lonely = bool(why) and not connected and machine.phase is not Phase.JOIN and roster.n > 1
    return f"{why}; no other hospital is connected" if lonely else why


def _alone(reached: int) -> str:
    """Say why a node that meets nobody stands still; reached: the round that it was in before."""
    if not reached:
        return "no other hospital is connected yet"
    return f"another hospital to run: alone this site does not go on with round {reached}"


def _from_whom(machine: RoundMachine, connected: Collection[int]) -> str:
    """Say who serves the agreed model, or who would, if he ran."""
    agreed = machine.book.agreed(machine.round)
    holders = sorted(agreed.voters) if agreed else []
    names = {index: machine.book.roster.member(index).name for index in holders}
    reached = [name for index, name in names.items() if index in connected]
    if reached:
        return f", from {', '.join(reached)}"
    return f": one of those who hold it has to run and be reached: {', '.join(names.values())}"
