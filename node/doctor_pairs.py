"""Why one member does not reach another, in one line that says what to change and who must.

Room: node. Law: pure: facts go in, findings come out. What other members say of each other is their
claim and named as such.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from node.findings import Finding, fail, ok, warn
from node.reaching import sight_of
from swarm.protocol.reach import Reach, Sight

SKEW_WARN_S: Final = 30.0
SKEW_FAIL_S: Final = 600.0
COMPARE: Final = "compare `swarm-node charter digest` at both sites"

WORDS: Final[Mapping[Sight, str]] = {
    Sight.CONNECTED: "connected",
    Sight.UNKNOWN: "not connected",
    Sight.NO_ADDRESS: "no address to dial",
    Sight.DNS: "its name does not resolve",
    Sight.REFUSED: "refused",
    Sight.UNREACHABLE: "unreachable",
    Sight.TIMEOUT: "timeout (firewall?)",
    Sight.WRONG_KEY: "another key answers",
    Sight.NO_SWARM_NODE: "no swarm node answers",
    Sight.NOT_A_MEMBER: "it refuses that member's key",
    Sight.OTHER_CHARTER: "it holds another charter",
    Sight.PRE_SHARED_KEY: "the pre-shared keys differ",
}
_FAULTS: Final = (
    Sight.WRONG_KEY,
    Sight.NOT_A_MEMBER,
    Sight.OTHER_CHARTER,
    Sight.PRE_SHARED_KEY,
)
"""What no waiting mends: configuration, at one end or both."""
_PERHAPS: Final = "it may not run yet; if it does, "
_ADVICE: Final[Mapping[Sight, str]] = {
    Sight.UNKNOWN: "{b}: start the node, if it does not run",
    Sight.DNS: "{b}: correct that name, or set network.addresses; {a}: check that its name server "
    "answers",
    Sight.REFUSED: "{b}: " + _PERHAPS + "its port is not what the address says: correct "
    "listen, the port forwarding or network.addresses",
    Sight.UNREACHABLE: "{a}: there is no route to that address; {b}: tell one that others reach "
    "(network.addresses)",
    Sight.TIMEOUT: "{b}: " + _PERHAPS + "let {a} in through the firewall to that port; "
    "{a}: let TCP out to it",
    Sight.NO_SWARM_NODE: "{b}: another program answers there: correct listen or the port forwarding; a "
    "proxy that looks into connections has to let these through; compare psk_file",
    Sight.NOT_A_MEMBER: "both: {b} does not have {a}'s key: " + COMPARE + ", and the rosters",
    Sight.OTHER_CHARTER: "both: " + COMPARE,
    Sight.PRE_SHARED_KEY: "both: every member needs the same psk_file, or none",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of connections, from one site.

    names: members, this site among them. sights, reasons: this site's own dials, in a code and in
    words. keys: libp2p's names of the members' keys, to say whose key answered. views: what others say.
    skews_s: how far others' clocks are ahead of ours. listens: whether this site accepts connections.
    running: whether its node runs, so that members may have dialled it.
    """

    own: int
    names: Mapping[int, str]
    sights: Mapping[int, Sight]
    reasons: Mapping[int, str]
    views: Mapping[int, Reach]
    skews_s: Mapping[int, float]
    keys: Mapping[str, int] = field(default_factory=dict)
    listens: bool = True
    running: bool = True

    def carriers(self, a: int, b: int) -> list[str]:
        """Return who is connected to both and carries, as far as is known."""
        return [
            self.names[peer]
            for peer, view in sorted(self.views.items())
            if peer not in (a, b)
            and peer in self.names
            and view.carries
            and all(one in view.connected or self._is_own_link(peer, one) for one in (a, b))
        ]

    def seen_by(self, member: int) -> list[str]:
        """Return who else says that it is connected to a member."""
        return [
            self.names[peer]
            for peer, view in sorted(self.views.items())
            if peer in self.names and peer != member and member in view.connected
        ]

    def _is_own_link(self, peer: int, member: int) -> bool:
        return member == self.own and self.sights.get(peer) is Sight.CONNECTED


def own_findings(facts: Facts) -> Iterator[Finding]:
    """One line for each other member, as seen from this site."""
    for member in sorted(facts.names.keys() - {facts.own}):
        yield _own(facts, member)


def _own(facts: Facts, member: int) -> Finding:
    a, b = facts.names[facts.own], facts.names[member]
    sight = facts.sights.get(member, Sight.UNKNOWN)
    if sight is Sight.CONNECTED:
        return ok("dial", f"{b}: direct" if facts.running else f"{b} answers")
    why = facts.reasons.get(member) or WORDS[sight]
    if facts.views and not facts.seen_by(member):
        why += "; nobody else reaches it"
    carriers = facts.carriers(facts.own, member)
    if sight is Sight.NO_ADDRESS:
        return _waits(facts, member, carriers)
    advice = _advice(facts, member, sight, why).format(a=a, b=b)
    if carriers:
        return warn("dial", f"{b}: via {carriers[0]}, not directly: {why}", advice)
    made = fail if sight in _FAULTS else warn
    return made("dial", f"{b}: {why}", advice)


def _waits(facts: Facts, member: int, carriers: list[str]) -> Finding:
    a, b = facts.names[facts.own], facts.names[member]
    if carriers:
        return ok("dial", f"{b}: via {carriers[0]}; it accepts no connection (outbound only)")
    if not facts.running:
        return ok("dial", f"{b} accepts no connection: it dials this site")
    if facts.listens:
        advice = (
            f"{b}: start the node, if it does not run; else let TCP out to {a}'s address and port"
        )
    else:
        advice = (
            "one of the two has to accept connections, or a third member that both reach has to run "
            "and to carry (network.forward_mb_s)"
        )
    return warn("dial", f"{b}: it accepts no connection, and has none to this site", advice)


def _advice(facts: Facts, member: int, sight: Sight, why: str) -> str:
    if sight is Sight.WRONG_KEY:
        return _whose(facts, why)
    if sight in (Sight.REFUSED, Sight.TIMEOUT) and (others := facts.seen_by(member)):
        where = (
            "correct the address or the port forwarding that {a} meets"
            if sight is Sight.REFUSED
            else "let {a} in through the firewall to that port; {a}: let TCP out to it"
        )
        return "{b}: it runs, " + f"{others[0]} reaches it: {where}"
    return _ADVICE[sight]


def _whose(facts: Facts, why: str) -> str:
    """Say to whom the address leads, if the key that answered is a member's."""
    for key, member in facts.keys.items():
        if key in why:
            whose = "this site itself" if member == facts.own else facts.names[member]
            return "{b}: that address leads to " + f"{whose}: correct it, or the port forwarding"
    return (
        "{b}: no member's key: another node runs there, or a site was made anew; put its own "
        "keys back, or have the roster changed"
    )


def others_findings(facts: Facts) -> Iterator[Finding]:
    """One line for each two other members that are not connected, as they say themselves.

    A member whom nobody reaches has its line as seen from here.
    """
    others = [
        member
        for member in sorted(set(facts.names) - {facts.own})
        if facts.sights.get(member) is Sight.CONNECTED or facts.seen_by(member)
    ]
    told = [member for member in others if member in facts.views]
    if not told:
        yield warn(
            "others",
            "no member answered, so none could tell how it reaches the others",
            "run the doctor again when some of them run",
        )
        return
    apart = 0
    for place, b in enumerate(others):
        for c in others[place + 1 :]:
            says = {
                (x, y): facts.views[x].sights.get(y, Sight.UNKNOWN)
                for x, y in ((b, c), (c, b))
                if x in facts.views
            }
            if says and Sight.CONNECTED not in says.values():
                apart += 1
                yield _apart(facts, b, c, says)
    if not apart:
        names = ", ".join(facts.names[member] for member in told)
        yield ok("others", f"{names}: connected to everybody else who is there")


def _apart(facts: Facts, b: int, c: int, says: Mapping[tuple[int, int], Sight]) -> Finding:
    names = facts.names
    parts = [f"{names[x]} → {names[y]}: {WORDS[sight]}" for (x, y), sight in says.items()]
    what = "; ".join(parts) + " (as they say)"
    carriers = facts.carriers(b, c)
    if facts.running and facts.sights.get(b) is facts.sights.get(c) is Sight.CONNECTED:
        carriers.append(names[facts.own])
    through = f"; reached via {carriers[0]}" if carriers else ""
    (x, y), sight = max(says.items(), key=lambda item: item[1])
    if sight is Sight.NO_ADDRESS:
        if carriers:
            return ok("others", what + through)
        return warn("others", what, "one of the two has to accept connections")
    whose = _ADVICE.get(sight, "{b}: correct that address, or the port forwarding")
    whose = whose.replace(_PERHAPS, "")  # it runs: somebody reaches it
    return warn("others", what + through, whose.format(a=names[x], b=names[y]))


def clock_findings(facts: Facts) -> Iterator[Finding]:
    """One line for each member that told the time."""
    for member, skew_s in sorted(facts.skews_s.items()):
        name = facts.names[member]
        said = f"{name}'s is {spelt(abs(skew_s))} {'ahead' if skew_s > 0 else 'behind'}"
        if abs(skew_s) > SKEW_FAIL_S:
            yield fail("clock", said, "set this machine's clock by NTP, or tell the other site to")
        elif abs(skew_s) > SKEW_WARN_S:
            yield warn("clock", said, "let both machines follow NTP")
        else:
            yield ok("clock", f"agrees with {name}'s within {SKEW_WARN_S:g} s")


def spelt(skew_s: float) -> str:
    """Return ``45 s``, ``12 min``, ``9 h``, ``10 days``."""
    for unit, size_s in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if skew_s >= 2 * size_s:
            return f"{skew_s / size_s:.0f} {unit}"
    return f"{skew_s:.0f} s"


def sight_of_dial(reason: str | None) -> Sight:
    """Return how a dial ended, in a code."""
    return Sight.CONNECTED if reason is None else sight_of(reason)
