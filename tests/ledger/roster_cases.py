"""What an auditor may be handed of a roster that changes: one attack for every code."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ledger_cases import Case, Files, case
from ledger_factory import digest_of, frames
from roster_factory import Living, ledger_key, lived, newcomer

from ledger.bundle import log_name
from ledger.canonical import decode, encode
from ledger.fork import Cut
from ledger.record import NO_ID, Kind, sign_record
from ledger.roster_update import Operation, Remove, SignedUpdate, sign_update


def made(federation: Living, *bundles: Files, codes: str = "", missing: int = 0) -> Case:
    expected = [
        (int(part.split()[0]), part.split()[1]) for part in codes.split(",") if part.strip()
    ]
    return Case(
        name="",
        bundles=list(bundles) or [federation.files()],
        charter=federation.charter_bytes,
        digest=federation.charter.digest_hex,
        expected=expected,
        missing=missing,
    )


def young() -> Living:
    federation = Living(4)
    federation.open_all()
    return federation


def with_update(federation: Living, data: bytes, name: str = "0001.update") -> Files:
    return federation.files() | {f"rosters/{name}": data}


def spoilt(
    codes: str, operation: Operation | None = None, change: Callable[[Living], Any] | None = None
) -> Case:
    """One update on a young federation; ``change`` returns what is different in the update."""
    federation = young()
    update = federation.propose(operation or newcomer(4))
    if change is not None:
        update = replace(update, **change(federation))
    return made(
        federation,
        with_update(federation, federation.signed(update).envelope()),
        codes=codes,
    )


def respelt(codes: str, change: Callable[[list[Any]], Any]) -> Case:
    """One update whose value was changed before it was signed by everybody."""
    federation = young()
    value: Any = decode(federation.propose(newcomer(4)).to_bytes())
    data = encode(change(value) or value)
    signed = SignedUpdate(
        data, tuple((i, sign_update(data, signer)) for i, signer in enumerate(_admins(4)))
    )
    return made(federation, with_update(federation, signed.envelope()), codes=codes)


def _admins(count: int) -> list[Any]:
    from roster_factory import admin

    return [admin(index) for index in range(count)]


@case
def a_roster_that_lived() -> Case:
    return made(lived())


@case
def a_split_vote_that_burnt_a_version() -> Case:
    federation = young()
    federation.change(newcomer(4), version=3)
    federation.open_current()
    return made(federation)


@case
def an_update_without_a_quorum() -> Case:
    federation = young()
    signed = federation.signed(federation.propose(newcomer(4)), 0, 3)
    return made(federation, with_update(federation, signed.envelope()), codes="3 E_ROSTER_QUORUM")


@case
def an_update_that_one_admin_signed_for_another() -> Case:
    federation = young()
    signed = federation.signed(federation.propose(newcomer(4)), 0, 1, 2)
    rows = list(signed.signatures)
    rows[2] = (2, rows[1][1])
    signed = SignedUpdate(signed.update_bytes, tuple(rows))
    return made(federation, with_update(federation, signed.envelope()), codes="3 E_SIGNATURE")


@case
def an_update_signed_by_who_is_no_member() -> Case:
    federation = young()
    signed = federation.signed(federation.propose(newcomer(4)), 0, 1, 2, 4)
    return made(federation, with_update(federation, signed.envelope()), codes="3 E_UNKNOWN_AUTHOR")


@case
def an_update_whose_signatures_stand_twice() -> Case:
    federation = young()
    signed = federation.signed(federation.propose(newcomer(4)), 0, 1)
    first, second = signed.signatures
    signed = SignedUpdate(signed.update_bytes, (first, second, second))
    return made(federation, with_update(federation, signed.envelope()), codes="2 E_ORDER")


@case
def an_update_of_another_network() -> Case:
    return spoilt("3 E_NETWORK", change=lambda _: {"net": digest_of("other")})


@case
def an_update_of_another_roster() -> Case:
    return spoilt("3 E_ROSTER_PREV", change=lambda _: {"previous": digest_of("other")})


@case
def an_update_that_does_not_count_upward() -> Case:
    federation = young()
    federation.change(newcomer(4))
    update = federation.propose(newcomer(5), version=1)
    files = with_update(federation, federation.signed(update).envelope(), "0002.update")
    return made(federation, files, codes="3 E_ROSTER_PREV")


@case
def an_update_under_another_number() -> Case:
    federation = young()
    signed = federation.signed(federation.propose(newcomer(4)))
    files = with_update(federation, signed.envelope(), "0002.update")
    return made(federation, files, codes="3 E_ROSTER_PREV")


def two_updates(federation: Living) -> tuple[SignedUpdate, SignedUpdate]:
    one = federation.signed(federation.propose(newcomer(4)), 0, 1, 2)
    other = federation.signed(federation.propose(newcomer(5, name="Another")), 1, 2, 3)
    return one, other


@case
def two_bundles_with_conflicting_updates() -> Case:
    federation = young()
    one, other = two_updates(federation)
    return made(
        federation,
        with_update(federation, one.envelope()),
        with_update(federation, other.envelope()),
        codes="3 E_ROSTER_FORK",
    )


@case
def one_bundle_with_conflicting_updates() -> Case:
    federation = young()
    one, _ = two_updates(federation)
    later = federation.signed(federation.propose(newcomer(5), version=2), 1, 2, 3)
    files = with_update(federation, one.envelope()) | {"rosters/0002.update": later.envelope()}
    return made(federation, files, codes="3 E_ROSTER_FORK")


@case
def a_newcomer_with_a_members_name() -> Case:
    return spoilt("3 E_ROSTER_DUP", newcomer(4, name="hospital  2"))


@case
def a_newcomer_with_a_weak_key() -> Case:
    return spoilt("3 E_WEAK_KEY", newcomer(4, witness_key=bytes(32)))


@case
def a_newcomer_with_a_members_key() -> Case:
    return spoilt("3 E_KEY_REUSE", newcomer(4, admin_key=ledger_key(2)))


@case
def a_rotation_to_a_key_of_before() -> Case:
    federation = young()
    federation.rotate(1)
    again = federation.signed(federation.propose(federation.rotation(1, ledger_key=ledger_key(1))))
    files = with_update(federation, again.envelope(), "0002.update")
    return made(federation, files, codes="3 E_KEY_REUSE")


@case
def a_rotation_that_leaves_an_epoch_out() -> Case:
    federation = young()
    signed = federation.signed(federation.propose(federation.rotation(1, epoch=2)))
    return made(federation, with_update(federation, signed.envelope()), codes="3 E_EPOCH")


@case
def a_removal_that_cuts_another_log() -> Case:
    return spoilt(
        "3 E_ROSTER_CUT", Remove(author=1), lambda federation: {"cuts": (federation.cut(2),)}
    )


@case
def a_removal_without_a_cut() -> Case:
    return spoilt("3 E_ROSTER_CUT", Remove(author=1), lambda _: {"cuts": ()})


@case
def a_removal_of_who_is_no_member() -> Case:
    cut = Cut(author=9, epoch=0, kept=0, head_id=NO_ID)
    change = {"operation": Remove(author=9), "cuts": (cut,)}
    return spoilt("3 E_UNKNOWN_AUTHOR", Remove(author=1), lambda _: change)


@case
def an_update_of_two_changes() -> Case:
    def twice(value: list[Any]) -> Any:
        value[4] = [value[4], value[4]]

    return respelt("2 E_SCHEMA", twice)


@case
def an_update_of_version_two() -> Case:
    return respelt("2 E_VERSION", lambda value: [2, *value[1:]])


@case
def an_update_with_control_characters_in_a_name() -> Case:
    def ring(value: list[Any]) -> Any:
        value[4][1] = b"Bell\x07"

    return respelt("2 E_SCHEMA", ring)


@case
def an_update_with_bytes_after_it() -> Case:
    federation = young()
    data = federation.signed(federation.propose(newcomer(4))).envelope()
    return made(federation, with_update(federation, data + b"\x00"), codes="2 E_ENCODING")


@case
def an_update_in_another_spelling() -> Case:
    federation = young()
    data = federation.signed(federation.propose(newcomer(4))).envelope()
    wide = b"\xdc\x00\x02" + data[1:]
    return made(federation, with_update(federation, wide), codes="2 E_NONCANONICAL")


@case
def an_update_longer_than_allowed() -> Case:
    federation = young()
    return made(federation, with_update(federation, bytes(50_000)), codes="2 E_SIZE")


@case
def a_rosters_folder_without_updates_of_this_name() -> Case:
    federation = young()
    signed = federation.signed(federation.propose(newcomer(4)))
    files = with_update(federation, signed.envelope(), "1.update")
    return made(federation, files, codes="4 E_BUNDLE", missing=4)


def after_cut() -> tuple[Living, list[Any]]:
    """Member 1 is removed; it wrote one record more than the cut keeps."""
    federation = young()
    log = federation.logs[1]
    update = federation.signed(federation.propose(Remove(author=1)))
    federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    federation.remove(1, cuts=(federation.cut(1, 1),))
    assert federation.updates == [update]
    return federation, log


@case
def a_record_after_the_cut() -> Case:
    federation, log = after_cut()
    files = federation.files()
    files[f"logs/{log_name((1, 0))}"] = frames(one.signed.envelope() for one in log)
    return made(federation, files, codes="14 E_AFTER_CUT")


def exported_before(kept: int) -> tuple[Living, Files]:
    """Member 1 rotates, and the cut takes away what a bundle from before holds and others acked."""
    federation = young()
    federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    federation.close_all(1)
    before = federation.files()
    federation.rotate(1, cuts=(federation.cut(1, kept),))
    federation.open_current()
    federation.close_all(2)
    return federation, before


@case
def a_bundle_from_before_a_cut_beside_one_from_after_it() -> Case:
    federation, before = exported_before(kept=1)
    return made(federation, federation.files(), before)


@case
def a_bundle_from_before_a_cut_that_keeps_nothing() -> Case:
    federation, before = exported_before(kept=0)
    return made(federation, before, federation.files())


@case
def a_bundle_that_holds_the_update_and_what_it_cut_away() -> Case:
    """Whoever knows the cut shows nothing behind it, whatever a bundle from before holds."""
    federation, before = exported_before(kept=1)
    name = f"logs/{log_name((1, 0))}"
    behind = federation.files() | {name: before[name]}
    return made(federation, before, behind, codes="14 E_AFTER_CUT")


@case
def a_wrong_signature_behind_a_cut_in_a_bundle_from_before_it() -> Case:
    federation, before = exported_before(kept=1)
    name = f"logs/{log_name((1, 0))}"
    data = before[name]
    before[name] = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
    return made(federation, federation.files(), before, codes="8 E_SIGNATURE")


@case
def a_cut_that_chose_the_branch_that_an_honest_member_had_not_seen() -> Case:
    """Member 2 was away: it acked and merged another record of member 1 than the roster keeps."""
    federation = young()
    opened, head = list(federation.logs[1]), federation.heads[1]
    unseen = federation.write(
        1, Kind.CONTRIBUTION, 1, federation.contribution_body(1, 1, samples=7)
    )
    offered = [unseen]
    acked = federation.heads[1]
    assert acked is not None
    body = federation.aggregation_body(offered, 1)
    federation.add(federation.draft(2, Kind.AGGREGATION, 1, body, [acked]))
    federation.logs[1], federation.heads[1] = opened, head
    federation.write(1, Kind.CONTRIBUTION, 1, federation.contribution_body(1, 1, samples=8))
    federation.rotate(1)
    federation.open_current()
    federation.close_all(2)
    return made(federation)


@case
def one_epoch_of_an_author_is_missing() -> Case:
    federation = young()
    federation.rotate(1, cuts=(federation.cut(1),))
    federation.open_current()
    federation.close_all(2)
    files = federation.files()
    del files[f"logs/{log_name((1, 1))}"]
    codes = ", ".join(["11 E_OMISSION"] * 3)
    return made(federation, files, codes=codes)


@case
def another_head_than_the_cuts() -> Case:
    federation = young()
    cut = Cut(author=1, epoch=0, kept=1, head_id=digest_of("other"))
    federation.remove(1, cuts=(cut,))
    return made(federation, codes="14 E_AFTER_CUT")


@case
def less_than_the_cut_keeps() -> Case:
    federation = young()
    cut = Cut(author=1, epoch=0, kept=2, head_id=digest_of("other"))
    federation.remove(1, cuts=(cut,))
    return made(federation, codes="14 E_OMISSION")


@case
def the_log_that_a_cut_keeps_is_missing() -> Case:
    federation = young()
    federation.remove(1)
    files = federation.files()
    del files[f"logs/{log_name((1, 0))}"]
    return made(federation, files, codes="4 E_MISSING_AUTHOR")


@case
def acks_of_what_a_later_cut_took_away_are_not_judged() -> Case:
    federation = young()
    federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    federation.close_all(1)
    federation.remove(1, cuts=(federation.cut(1, 1),))
    federation.close_all(2)
    return made(federation)


@case
def an_ack_beyond_a_cut_that_its_writer_knew() -> Case:
    federation = young()
    beyond = federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    head = federation.heads[1]
    assert head is not None
    assert head.prev_id == beyond.id
    federation.remove(1, cuts=(federation.cut(1, 1),))
    draft = federation.draft(2, Kind.METRICS, 1, federation.metrics_body(1), [head])
    federation.add(replace(draft, lamport=50))
    return made(federation, codes="11 E_OMISSION")


@case
def an_open_that_names_no_epoch_before() -> Case:
    federation = young()
    federation.rotate(1)
    federation.write(1, Kind.OPEN, 0, replace(federation.open_body(1), previous_head=NO_ID))
    return made(federation, codes="9 E_OPEN")


@case
def a_record_of_a_retired_epoch() -> Case:
    federation = young()
    draft = federation.draft(1, Kind.METRICS, 1, federation.metrics_body(1))
    signer, log = federation.signers[1], federation.logs[1]
    federation.rotate(1)
    late = sign_record(replace(draft, roster=1), signer)
    files = federation.files()
    files[f"logs/{log_name((1, 0))}"] = frames(one.signed.envelope() for one in (*log, late))
    return made(federation, files, codes="7 E_EPOCH")


@case
def a_newcomer_who_wrote_before_it_joined() -> Case:
    federation = young()
    federation.change(newcomer(4))
    federation.open(4, roster=0)
    return made(federation, codes="7 E_EPOCH")


@case
def a_record_of_a_version_that_was_burnt() -> Case:
    federation = young()
    federation.change(newcomer(4), version=3)
    federation.write(0, Kind.METRICS, 1, federation.metrics_body(1), roster=2)
    return made(federation, codes="7 E_ROSTER_UNKNOWN")


@case
def a_roster_that_goes_backward() -> Case:
    federation = young()
    federation.change(newcomer(4))
    federation.write(0, Kind.METRICS, 1, federation.metrics_body(1))
    federation.write(0, Kind.METRICS, 1, federation.metrics_body(1), roster=0)
    return made(federation, codes="10 E_ROSTER_BACKWARD")
