"""Step 14: a fork proof proves by itself or is refused; a cut ends a log."""

from dataclasses import replace

import pytest
from ledger_factory import Federation, digest_of

from ledger.bodies import Close, CloseReason, ForkProof, Kind
from ledger.errors import VerificationError
from ledger.fork import Cut, Fork, check_cut, check_fork_proof, fork_proof
from ledger.record import NO_ID, Record, SignedRecord, Verified, sign_record


class Forked:
    """Four hospitals; hospital 2 signs two records for its slot 1."""

    def __init__(self) -> None:
        self.federation = Federation(4)
        self.federation.open_all()
        self.one = self.other(1)
        self.two = self.other(2)

    def other(self, samples: int, author: int = 2, **changes: object) -> Verified[Record]:
        body = self.federation.contribution_body(author, 1, samples=samples)
        record = replace(self.federation.draft(author, Kind.CONTRIBUTION, 1, body), **changes)  # type: ignore[arg-type]
        return sign_record(record, self.federation.signers[author])

    def refused(self, a: SignedRecord, b: SignedRecord | bytes) -> str:
        envelope_b = b if isinstance(b, bytes) else b.envelope()
        with pytest.raises(VerificationError) as caught:
            check_fork_proof(
                ForkProof(envelope_a=a.envelope(), envelope_b=envelope_b), self.federation.roster
            )
        assert caught.value.code == "E_FORK_PROOF"
        return caught.value.message


def test_two_records_for_one_slot_are_a_fork_in_either_order() -> None:
    forked = Forked()
    one, two = forked.one.signed, forked.two.signed
    shown = Fork(2, 0, 1, tuple(sorted((one.id, two.id))))  # type: ignore[arg-type]
    assert fork_proof(one, two) == fork_proof(two, one)
    assert check_fork_proof(fork_proof(one, two), forked.federation.roster) == shown
    either = ForkProof(envelope_a=two.envelope(), envelope_b=one.envelope())
    assert check_fork_proof(either, forked.federation.roster) == shown


def test_a_proof_survives_the_ledger() -> None:
    forked = Forked()
    proof = fork_proof(forked.one.signed, forked.two.signed)
    record = forked.federation.write(0, Kind.FORK_PROOF, 1, proof)
    assert record.value.body == proof


def test_identical_halves_prove_nothing() -> None:
    forked = Forked()
    assert "one record" in forked.refused(forked.one.signed, forked.one.signed)


def test_records_of_different_slots_prove_nothing() -> None:
    forked = Forked()
    later = forked.other(2, seq=2)
    assert "2/0/1" in forked.refused(forked.one.signed, later.signed)


def test_records_of_different_authors_prove_nothing() -> None:
    forked = Forked()
    assert "3/0/1" in forked.refused(forked.one.signed, forked.other(1, author=3).signed)


def test_a_half_signed_by_another_is_forged() -> None:
    forked = Forked()
    record = forked.two.value
    forged = sign_record(record, forked.federation.signers[1]).signed
    assert "half B" in forked.refused(forked.one.signed, forged)
    assert "E_SIGNATURE" in forked.refused(forked.one.signed, forged)


def test_a_half_with_a_changed_body_is_forged() -> None:
    forked = Forked()
    changed = SignedRecord(forked.two.signed.record_bytes, forked.one.signed.signature)
    assert "E_SIGNATURE" in forked.refused(forked.one.signed, changed)


def test_a_half_of_another_network_proves_nothing() -> None:
    forked = Forked()
    abroad = forked.other(2, net=digest_of("another network"))
    assert "E_NETWORK" in forked.refused(forked.one.signed, abroad.signed)


def test_a_half_that_is_no_record_proves_nothing() -> None:
    forked = Forked()
    assert "E_ENVELOPE" in forked.refused(forked.one.signed, b"no envelope")


def test_a_half_of_an_unknown_epoch_proves_nothing() -> None:
    forked = Forked()
    assert "E_UNKNOWN_AUTHOR" in forked.refused(forked.one.signed, forked.other(2, epoch=1).signed)


def cut_of(federation: Federation, author: int, kept: int) -> Cut:
    head = federation.logs[author][kept - 1].id if kept else NO_ID
    return Cut(author=author, epoch=0, kept=kept, head_id=head)


def test_records_up_to_the_cut_stand_and_the_next_is_refused() -> None:
    federation = Federation(4)
    federation.play(1)
    log = federation.logs[1]
    cut = cut_of(federation, 1, 3)
    for record in log[:3]:
        check_cut(cut, record)
    for record in log[3:]:
        with pytest.raises(VerificationError) as caught:
            check_cut(cut, record)
        assert (caught.value.code, caught.value.seq) == ("E_AFTER_CUT", record.value.seq)


def test_another_record_in_the_place_of_the_cuts_head_is_refused() -> None:
    federation = Federation(4)
    federation.open_all()
    cut = Cut(author=1, epoch=0, kept=2, head_id=digest_of("the head that stands"))
    record = federation.write(1, Kind.CLOSE, 1, Close(reason=CloseReason.LEFT))
    with pytest.raises(VerificationError) as caught:
        check_cut(cut, record)
    assert caught.value.code == "E_AFTER_CUT"
    assert "another record" in caught.value.message


def test_a_cut_of_nothing_refuses_the_first_record_and_no_other_log() -> None:
    federation = Federation(4)
    federation.open_all()
    cut = cut_of(federation, 1, 0)
    check_cut(cut, federation.logs[2][0])
    with pytest.raises(VerificationError, match="after the cut"):
        check_cut(cut, federation.logs[1][0])


def test_a_cut_belongs_to_one_epoch() -> None:
    federation = Federation(4)
    federation.play(1)
    cut = replace(cut_of(federation, 1, 1), epoch=1)
    check_cut(cut, federation.logs[1][3])


@pytest.mark.parametrize(("kept", "head"), [(-1, NO_ID), (0, b"x" * 32), (2, NO_ID)])
def test_a_cut_keeps_records_up_to_a_head_or_none(kept: int, head: bytes) -> None:
    with pytest.raises(ValueError, match="cut"):
        Cut(author=0, epoch=0, kept=kept, head_id=head)
