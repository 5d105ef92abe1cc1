"""The charter and the sites of a plan. Room: scenarios."""

from functools import partial

from ledger.charter import Charter, load_charter
from ledger.keys import Signer, derive
from node.identity import Identity
from node.service import Learner
from scenarios.simulation.judge import TinyJudge
from scenarios.simulation.learner import COLUMNS, LyingLearner, TinyLearner
from scenarios.simulation.plan import Plan
from scenarios.simulation.swarm import SimulatedSite, identity_of

ROWS: tuple[int, ...] = (64, 24, 12, 40)
"""Cases of member 0, 1, 2, … and again: hospitals are unequal."""


def charter_of(plan: Plan) -> Charter:
    """Return the federation's genesis."""
    policy = {
        "rounds": plan.rounds,
        "members_min": plan.members_min,
        "deadline_min_s": plan.deadline_min_s,
        "deadline_max_s": plan.deadline_max_s,
        "grace_s": plan.grace_s,
        "start_wait_s": plan.start_wait_s,
        "inactive_after_rounds": plan.inactive_after_rounds,
    }
    features = "".join(f'[[data.features]]\nname = "{name}"\ntype = "number"\n' for name in COLUMNS)
    text = (
        f'version = 1\nfederation = "simulated"\nseed = {plan.seed}\n[model]\nname = "logistic"\n'
        '[data]\nlabel = "ill"\nhead = "binary"\nclasses = ["0", "1"]\n'
        f'standardise = "{"federated" if plan.has_moments else "none"}"\n'
        + features
        + _aggregation(plan)
        + (f'[reputation]\nmode = "{plan.reputation}"\n' if plan.reputation != "off" else "")
        + "[rounds]\n"
        + "".join(f"{key} = {value}\n" for key, value in policy.items())
        + "".join(_member(plan.seed, index) for index in range(plan.members))
    )
    return load_charter(text.encode())


def _aggregation(plan: Plan) -> str:
    averaging = f'averaging = "{plan.averaging}"\n' if plan.averaging != "full" else ""
    return f"[aggregation]\n{averaging}{plan.learning}\n" if averaging or plan.learning else ""


def sites_of(plan: Plan) -> list[SimulatedSite]:
    """Return every member's keys and learner."""
    attacks = {liar.member: liar.attacks for liar in plan.liars}
    charter = charter_of(plan)

    def learner(index: int) -> Learner:
        honest = TinyLearner(
            plan.seed * 1_000 + index, rows=ROWS[index % len(ROWS)], charter=charter
        )
        lies = attacks.get(index, ())
        bad = next((name[4:] for name in lies if name.startswith("bad-")), "")
        if not bad:
            return honest
        return LyingLearner(
            honest, bad_update="" if bad == "merge" else bad, bad_merge=bad == "merge"
        )

    def judge(index: int, on: Learner) -> TinyJudge:
        honest = on.inner if isinstance(on, LyingLearner) else on
        if not isinstance(honest, TinyLearner):
            raise TypeError("simulated members learn with the tiny learner")
        return TinyJudge(honest, charter, lies=index in attacks)

    return [
        SimulatedSite(
            identity=identity_of(plan.seed, index),
            learner=partial(learner, index),
            judge=partial(judge, index) if plan.reputation != "off" else None,
        )
        for index in range(plan.sites)
    ]


def _member(seed: int, index: int) -> str:
    identity = identity_of(seed, index)
    return (
        f'[[members]]\nname = "member-{index}"\nrole = "hospital"\n'
        f'ledger_key = "{identity.ledger().public_key.hex()}"\n'
        f'witness_key = "{identity.witness().public_key.hex()}"\n'
        f'admin_key = "{_admin(identity).hex()}"\nnetwork_key = "{identity.network_key.hex()}"\n'
        "addresses = []\n"
    )


def _admin(identity: Identity) -> bytes:
    return Signer(derive(identity.seed, "admin")).public_key
