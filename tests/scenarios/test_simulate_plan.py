"""Plans: drawn from the seed alone, within what is tolerated, said in words, made small."""

from dataclasses import replace

from scenarios.simulation.faults import CrashAtStep, Kill
from scenarios.simulation.liars import ATTACKS
from scenarios.simulation.plan import Plan, Size, draw_plan
from scenarios.simulation.shrink import shrink

PLANS = [draw_plan(seed) for seed in range(400)]


def test_a_seed_is_always_the_same_plan() -> None:
    assert [draw_plan(seed) for seed in range(50)] == PLANS[:50]
    assert len({tuple(plan.lines()) for plan in PLANS}) == len(PLANS)


def test_liars_and_the_dead_are_never_more_than_f() -> None:
    for plan in PLANS:
        assert len(plan.liars) + len(plan.stays_dead) <= plan.tolerated, plan.lines()
        assert not {liar.member for liar in plan.liars} & set(plan.stays_dead)


def test_every_fault_and_every_attack_is_drawn() -> None:
    kinds = {type(fault).__name__ for plan in PLANS for fault in plan.faults}
    assert kinds == {
        "Kill", "CrashAtStep", "BadDisk", "Cut", "SlowLink", "Weather", "ClockJump", "Stall",
        "Rotation", "Removal", "Addition", "Leaving",
    }  # fmt: skip
    attacks = {attack for plan in PLANS for liar in plan.liars for attack in liar.attacks}
    assert attacks == set(ATTACKS)
    assert {plan.has_moments for plan in PLANS} == {True, False}
    assert {plan.averaging for plan in PLANS} == {"full", "gossip"}


def test_every_fault_is_one_line_that_names_its_member() -> None:
    for plan in PLANS[:100]:
        lines = plan.lines()
        assert lines[0].startswith(f"seed {plan.seed}: {plan.members} members")
        assert all("\n" not in line for line in lines)
        assert len(lines) == 3 + len(plan.liars) + len(plan.faults)


def test_the_size_is_what_was_asked_for() -> None:
    plan = draw_plan(3, Size(members=9, rounds=11, calm=True))
    assert (plan.members, plan.rounds, plan.faults, plan.liars) == (9, 11, (), ())


def test_shrinking_leaves_what_is_needed_and_nothing_else() -> None:
    plan = next(p for p in PLANS if len({type(f) for f in p.faults}) > 3 and p.liars)
    needed = plan.faults[2], plan.faults[-1]

    def fails(one: Plan) -> bool:
        return all(fault in one.faults for fault in needed)

    small = shrink(plan, fails)
    assert small.faults == needed
    assert small.liars == ()
    assert shrink(small, fails) == small


def test_a_plan_that_needs_everything_stays_as_it_is() -> None:
    kill = Kill(at_s=1.0, member=0, down_s=1.0, power=True)
    crash = CrashAtStep(step=4, member=1, down_s=1.0, power=False)
    plan = replace(
        draw_plan(1, Size(calm=True)), faults=(kill, crash), skew_ms=(0,) * draw_plan(1).members
    )
    assert shrink(plan, lambda one: one.faults == (kill, crash)) == plan
