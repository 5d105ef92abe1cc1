"""Checkpoints and cosignatures: what a witness promises, and every way to fake one."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from checkpoint_factory import (
    TIME_S,
    consistency,
    cosignature,
    cosigned,
    head,
    ids_of,
    signed,
    tree_of,
    with_blob,
    witness,
)
from hypothesis import given
from hypothesis import strategies as st
from ledger_factory import Federation, seed_of

from ledger.checkpoint import (
    VerifiedCheckpoint,
    WitnessState,
    attach,
    check_log,
    cosign,
    log_vkey,
    make_checkpoint,
    open_checkpoint,
    origin_of,
    parse_text,
    policy,
    sign,
    witness_name,
    witness_vkey,
)
from ledger.errors import VerificationError
from ledger.keys import Signer, derive, verify
from ledger.merkle import EMPTY_ROOT, Tree
from ledger.note import NOTE_BYTES_MAX, SignatureLine, key_id, parse_note, vkey


@pytest.fixture(scope="module")
def federation() -> Federation:
    federation = Federation(4)  # f = 1, q = 3
    federation.play(2)
    return federation


def refused(code: str, data: bytes, federation: Federation, **options: int) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        open_checkpoint(data, roster=federation.roster, **options)
    assert caught.value.code == code, str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


# --- the format -------------------------------------------------------------------------------------


def test_the_note_of_the_go_package_s_documentation_opens() -> None:
    """A known answer by other hands: golang.org/x/mod/sumdb/note."""
    data = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngot"
        "pRZb6KE6RyyBwJnAM=\n"
    ).encode()
    key = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert vkey("PeterNeumann", key[0], key[1:]).startswith("PeterNeumann+c74f20a3+ARpc2QcU")
    note = parse_note(data)
    (line,) = note.lines
    assert (line.name, line.key_id) == ("PeterNeumann", key_id("PeterNeumann", 1, key[1:]))
    verify(key[1:], note.text, line.signature)
    assert note.encode() == data


def test_a_checkpoint_reads_as_the_specification_shows(federation: Federation) -> None:
    net = federation.charter.digest_hex
    lines = cosigned(federation, 2, [0, 3, 1]).decode().split("\n")
    root = base64.b64encode(tree_of(ids_of(federation.logs[2])).root()).decode()
    assert lines[:4] == [f"swarm-ledger/v1/{net}/log/2/0", "7", root, ""]
    names = [line.split(" ")[:2] for line in lines[4:-1]]
    assert names == [
        ["—", f"swarm-ledger/v1/{net}/log/2/0"],
        *(["—", f"swarm-ledger/v1/{net}/witness/{member}"] for member in (0, 3, 1)),
    ]


def test_the_signatures_are_over_the_specified_bytes(federation: Federation) -> None:
    note = parse_note(cosigned(federation, 1, [3]))
    log, cosigner = note.lines
    key, witness_key = federation.signers[1].public_key, witness(3).public_key
    name, other_name = origin_of(federation.charter.net, 1, 0), witness_name(note_net(note.text), 3)
    assert log.key_id == hashlib.sha256(f"{name}\n\x01".encode() + key).digest()[:4]
    verify(key, note.text, log.signature)
    prefix = f"{other_name}\n\x04".encode()
    assert cosigner.key_id == hashlib.sha256(prefix + witness_key).digest()[:4]
    assert cosigner.signature[:8] == TIME_S.to_bytes(8, "big")
    message = b"cosignature/v1\ntime 1700000000\n" + note.text
    verify(witness_key, message, cosigner.signature[8:])


def note_net(text: bytes) -> bytes:
    return parse_text(text).net


def test_a_quorum_anchors(federation: Federation) -> None:
    data = cosigned(federation, 2, [0, 3, 1])
    opened = open_checkpoint(data, roster=federation.roster)
    assert opened.checkpoint == head(federation, 2)
    assert opened.cosigned_s == {0: TIME_S, 1: TIME_S, 3: TIME_S}
    assert opened.is_anchored
    assert opened.digest == hashlib.sha256(data).digest()


def test_the_author_s_own_cosignature_counts_as_one_and_the_log_s_signature_as_none(
    federation: Federation,
) -> None:
    opened = open_checkpoint(cosigned(federation, 2, [2, 0, 1]), roster=federation.roster)
    assert sorted(opened.cosigned_s) == [0, 1, 2]
    error = refused("E_QUORUM", cosigned(federation, 2, [2, 0]), federation)
    assert str(error) == (
        "E_QUORUM: 2 of 4 members have cosigned (author 2, epoch 0; expected at least 3)"
    )


def test_a_checkpoint_of_the_author_alone_can_be_looked_at_but_is_no_anchor(
    federation: Federation,
) -> None:
    opened = open_checkpoint(signed(federation, 0), roster=federation.roster, cosigners_min=0)
    assert not opened.is_anchored
    refused("E_QUORUM", signed(federation, 0), federation)
    refused("E_QUORUM", signed(federation, 0), federation, cosigners_min=1)


def test_only_open_checkpoint_makes_a_verified_one(federation: Federation) -> None:
    with pytest.raises(TypeError, match="only open_checkpoint"):
        VerifiedCheckpoint(head(federation, 0), {}, 0, b"")


def test_an_empty_log_has_a_checkpoint() -> None:
    federation = Federation(1)
    opened = open_checkpoint(cosigned(federation, 0, [0]), roster=federation.roster)
    assert (opened.checkpoint.size, opened.checkpoint.root) == (0, EMPTY_ROOT)


def test_unknown_signers_are_passed_over_as_c2sp_demands(federation: Federation) -> None:
    """Public witnesses may cosign as well; they count for nothing here."""
    data = cosigned(federation, 0, [0, 1, 2])
    stranger = SignatureLine("witness.example/w1", b"abcd", bytes(72)).encode()
    old_key = SignatureLine(witness_name(federation.charter.net, 3), b"abcd", bytes(72)).encode()
    opened = open_checkpoint(data + stranger + old_key, roster=federation.roster)
    assert sorted(opened.cosigned_s) == [0, 1, 2]


# --- forgeries: the form ----------------------------------------------------------------------------


def changed_line(number: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Spoil one line of the file; 4 is the log's signature, 5 the first cosignature."""

    def spoil(data: bytes) -> bytes:
        lines = data.split(b"\n")
        lines[number] = change(lines[number])
        return b"\n".join(lines)

    return spoil


def spelled(number: int, text: bytes) -> Callable[[bytes], bytes]:
    return changed_line(number, lambda _: text)


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "no signature": lambda data: data.split(b"\n\n")[0] + b"\n\n",
    "no blank line": lambda data: data.replace(b"\n\n", b"\n"),
    "carriage returns": lambda data: data.replace(b"\n", b"\r\n"),
    "a carriage return in one line": changed_line(1, lambda line: line + b"\r"),
    "a tab": changed_line(5, lambda line: line.replace(b" ", b"\t")),
    "a null byte": changed_line(0, lambda line: line + b"\0"),
    "not utf-8": changed_line(0, lambda line: line + b"\xff"),
    "no last newline": lambda data: data[:-1],
    "two last newlines": lambda data: data + b"\n",
    "a space in front": lambda data: b" " + data,
    "a byte order mark": lambda data: "\ufeff".encode() + data,
    "an extension line": changed_line(2, lambda line: line + b"\nextension"),
    "a blank extension line": changed_line(2, lambda line: line + b"\n"),
    "two lines": lambda data: data.split(b"\n", 1)[1],
    "another origin": changed_line(0, lambda line: b"example.com/" + line),
    "an origin with more": changed_line(0, lambda line: line + b"/1"),
    "an origin in capitals": changed_line(0, lambda line: line.upper()),
    "a cut network": changed_line(0, lambda line: line[:40] + line[41:]),
    "an author with leading zeros": changed_line(0, lambda line: line[:-3] + b"01/0"),
    "an author in other digits": changed_line(0, lambda line: line[:-3] + "١/0".encode()),
    "an author past u16": changed_line(0, lambda line: line[:-3] + b"65536/0"),
    "an epoch past u32": changed_line(0, lambda line: line[:-1] + b"4294967296"),
    "a size with leading zeros": changed_line(1, lambda line: b"0" + line),
    "a size with a sign": changed_line(1, lambda line: b"+" + line),
    "a size with a space": changed_line(1, lambda line: line + b" "),
    "a size with an underscore": spelled(1, b"1_0"),
    "an empty size": spelled(1, b""),
    "a hexadecimal size": spelled(1, b"0x7"),
    "a size in other digits": spelled(1, "٧".encode()),
    "a size past 2^53": spelled(1, b"9007199254740992"),
    "a size of a million digits": spelled(1, b"9" * 60_000),
    "size zero with a root": spelled(1, b"0"),
    "a root that is not base64": changed_line(2, lambda line: b"*" + line[1:]),
    "a root in the url alphabet": spelled(2, base64.urlsafe_b64encode(b"\xff" * 32)),
    "a root without padding": changed_line(2, lambda line: line.rstrip(b"=")),
    "a root with loose last bits": changed_line(2, lambda line: line[:-2] + b"B="),
    "a root of 31 bytes": spelled(2, base64.b64encode(bytes(31))),
    "an empty root": spelled(2, b""),
    "a signature line without a dash": changed_line(5, lambda line: line[4:]),
    "a signature line with a hyphen": changed_line(5, lambda line: b"-" + line[3:]),
    "a signature line with two spaces": changed_line(5, lambda line: line.replace(b" ", b"  ")),
    "a signature line with an end": changed_line(5, lambda line: line + b" "),
    "a signature line of a dash": spelled(5, "— ".encode()),
    "a key name with a plus": spelled(5, "— a+b QUJDREVG".encode()),
    "a key name with a wide space": spelled(5, "— a\u3000b QUJDREVG".encode()),
    "a signature that is not base64": changed_line(5, lambda line: line[:-1] + b"*"),
    "a signature with loose padding": changed_line(5, lambda line: line + b"="),
    "a key id without a signature": changed_line(
        5, lambda line: line.rsplit(b" ", 1)[0] + b" QUJDRA=="
    ),
    "more than the limit": lambda data: (
        data + SignatureLine("w", b"abcd", bytes(NOTE_BYTES_MAX)).encode()
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_another_spelling_is_no_checkpoint(name: str, federation: Federation) -> None:
    refused("E_CHECKPOINT", FORMS[name](cosigned(federation, 1, [0, 1, 2])), federation)


# --- forgeries: who signed what ---------------------------------------------------------------------


def test_every_changed_byte_is_refused(federation: Federation) -> None:
    data = cosigned(federation, 1, [0, 1, 2])  # exactly a quorum, so every line is needed
    open_checkpoint(data, roster=federation.roster)
    for at in range(len(data)):
        with pytest.raises(VerificationError):
            open_checkpoint(
                data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], roster=federation.roster
            )


def test_a_checkpoint_of_another_network_is_refused(federation: Federation) -> None:
    other = Federation(4, "# another byte, another network\n")
    other.open_all()
    error = refused("E_CHECKPOINT", cosigned(other, 1, [0, 1, 2]), federation)
    assert "network" in error.message


def test_a_checkpoint_of_who_is_no_member_or_of_no_epoch_is_refused(
    federation: Federation,
) -> None:
    for change in ({"author": 9}, {"epoch": 1}):
        checkpoint = replace(head(federation, 1), **change)
        data = sign(checkpoint, federation.signers[1])
        refused("E_CHECKPOINT", data, federation, cosigners_min=0)


def test_a_log_that_did_not_sign_is_refused(federation: Federation) -> None:
    checkpoint = head(federation, 1)
    by_other = sign(checkpoint, federation.signers[2])
    error = refused("E_CHECKPOINT", by_other, federation, cosigners_min=0)
    assert error.message == "0 signatures of the log"
    # The right name and key id, another's signature.
    (line,) = parse_note(sign(checkpoint, federation.signers[1])).lines
    forged = replace(line, signature=federation.signers[2].sign(checkpoint.text()))
    data = checkpoint.text() + b"\n" + forged.encode()
    error = refused("E_CHECKPOINT", data, federation, cosigners_min=0)
    assert error.message == "the log's signature does not verify"
    # The witness key of the same member is not the log's key.
    refused("E_CHECKPOINT", sign(checkpoint, witness(1)), federation, cosigners_min=0)


def test_a_log_that_signed_twice_is_refused(federation: Federation) -> None:
    data = signed(federation, 1)
    (line,) = parse_note(data).lines
    refused("E_CHECKPOINT", data + line.encode(), federation, cosigners_min=0)


def test_one_member_cannot_make_a_quorum_by_cosigning_again(federation: Federation) -> None:
    data = cosigned(federation, 1, [0, 1])
    again = cosignature(federation, signed(federation, 1), 0, time_s=TIME_S + 1)
    error = refused("E_COSIGN", data + again, federation)
    assert error.message == "member 0 has cosigned twice"


def test_a_cosignature_of_another_checkpoint_member_or_time_is_refused(
    federation: Federation,
) -> None:
    data = cosigned(federation, 1, [0, 1])
    good = cosignature(federation, data, 2)
    stale = cosignature(federation, signed(federation, 1, 3), 2)
    of_other_log = cosignature(federation, signed(federation, 0), 2)
    later = with_blob(good, lambda blob: blob[:4] + (TIME_S + 1).to_bytes(8, "big") + blob[12:])
    named_otherwise = SignatureLine(
        witness_name(federation.charter.net, 3),
        key_id(witness_name(federation.charter.net, 3), 4, witness(3).public_key),
        parse_note(data + good).lines[-1].signature,
    ).encode()
    short = with_blob(good, lambda blob: blob[:-1])
    long = with_blob(good, lambda blob: blob + b"\0")
    for line in (stale, of_other_log, later, named_otherwise, short, long):
        refused("E_COSIGN", data + line, federation)


def test_a_time_past_2_to_the_63_is_refused(federation: Federation) -> None:
    data = signed(federation, 1)
    message = f"cosignature/v1\ntime {2**63}\n".encode() + parse_note(data).text
    blob = (2**63).to_bytes(8, "big") + witness(0).sign(message)
    name = witness_name(federation.charter.net, 0)
    line = SignatureLine(name, key_id(name, 4, witness(0).public_key), blob)
    refused("E_COSIGN", data + line.encode(), federation, cosigners_min=0)


def test_a_ledger_key_does_not_cosign(federation: Federation) -> None:
    """One key, one purpose: the log's own key under a witness's name is an unknown key."""
    data = cosigned(federation, 1, [0, 2])
    name, signer = witness_name(federation.charter.net, 1), federation.signers[1]
    message = f"cosignature/v1\ntime {TIME_S}\n".encode() + parse_note(data).text
    blob = TIME_S.to_bytes(8, "big") + signer.sign(message)
    line = SignatureLine(name, key_id(name, 4, signer.public_key), blob)
    refused("E_QUORUM", data + line.encode(), federation)


# --- the witness ------------------------------------------------------------------------------------


def ask(
    federation: Federation, state: WitnessState, data: bytes, proof: tuple[bytes, ...] = ()
) -> tuple[WitnessState, bytes]:
    return cosign(
        state, data, proof=proof, roster=federation.roster, member=3, signer=witness(3),
        time_s=TIME_S,
    )  # fmt: skip


def will_not(
    federation: Federation, state: WitnessState, data: bytes, proof: tuple[bytes, ...] = ()
) -> None:
    with pytest.raises(VerificationError) as caught:
        ask(federation, state, data, proof)
    assert caught.value.code == "E_CHECKPOINT"
    assert caught.value.author == 0


def test_a_witness_follows_a_log_that_grows(federation: Federation) -> None:
    state = WitnessState()
    for old_size, size in ((0, 2), (2, 2), (2, 5), (5, 6), (6, 7)):
        data = signed(federation, 0, size)
        state, line = ask(federation, state, data, consistency(federation, 0, old_size, size))
        assert state == WitnessState(size, head(federation, 0, size).root)
        both = attach(data, [line], roster=federation.roster)
        opened = open_checkpoint(both, roster=federation.roster, cosigners_min=1)
        assert opened.cosigned_s == {3: TIME_S}


def test_a_witness_never_cosigns_two_views_of_one_log(federation: Federation) -> None:
    other = Federation(4)
    other.open_all()
    for round_ in (1, 1, 2):  # the same author and keys, another history
        other.write(0, 2, round_, other.contribution_body(0, round_, samples=7))
    state = ask(federation, WitnessState(), signed(federation, 0, 3))[0]
    will_not(federation, state, signed(other, 0, 3))
    will_not(federation, state, signed(other, 0, 4), consistency(other, 0, 3, 4))
    will_not(federation, state, signed(other, 0, 4), consistency(federation, 0, 3, 4))


def test_a_witness_never_goes_back(federation: Federation) -> None:
    state = ask(federation, WitnessState(), signed(federation, 0, 5))[0]
    will_not(federation, state, signed(federation, 0, 4))
    will_not(federation, state, signed(federation, 0, 4), consistency(federation, 0, 4, 5))


def test_a_witness_wants_a_proof(federation: Federation) -> None:
    state = ask(federation, WitnessState(), signed(federation, 0, 3))[0]
    will_not(federation, state, signed(federation, 0, 5))
    will_not(federation, state, signed(federation, 0, 3), consistency(federation, 0, 3, 5))


def test_a_witness_cosigns_only_what_the_author_signed(federation: Federation) -> None:
    checkpoint = head(federation, 0)
    will_not(federation, WitnessState(), sign(checkpoint, federation.signers[1]))


def test_a_witness_cosigns_with_its_own_key(federation: Federation) -> None:
    for signer, time_s in ((witness(2), TIME_S), (witness(3), -1), (witness(3), 2**63)):
        with pytest.raises(ValueError, match="witness key"):
            cosign(
                WitnessState(), signed(federation, 0), proof=(), roster=federation.roster,
                member=3, signer=signer, time_s=time_s,
            )  # fmt: skip


def test_a_witness_s_state_survives_its_store() -> None:
    for state in (WitnessState(), WitnessState(2**53 - 1, b"r" * 32)):
        assert WitnessState.decode(state.encode()) == state
    for data in (b"\x90", WitnessState(3, b"r" * 31).encode(), b"\x92\x01\x01"):
        with pytest.raises(VerificationError):
            WitnessState.decode(data)


def test_one_peer_s_bad_line_does_not_spoil_the_file(federation: Federation) -> None:
    data = cosigned(federation, 1, [0])
    good = cosignature(federation, data, 2)
    assert attach(data, [good, good], roster=federation.roster) == data + good
    assert attach(data + good, [good], roster=federation.roster) == data + good
    stranger = SignatureLine("witness.example/w1", b"abcd", bytes(72)).encode()
    stale = cosignature(federation, signed(federation, 1, 3), 2)
    for line, code in ((stranger, "E_COSIGN"), (stale, "E_COSIGN"), (b"junk\n", "E_CHECKPOINT")):
        with pytest.raises(VerificationError) as caught:
            attach(data, [line], roster=federation.roster)
        assert caught.value.code == code


# --- a log against its checkpoint -------------------------------------------------------------------


def test_a_log_is_held_against_its_checkpoint(federation: Federation) -> None:
    opened = open_checkpoint(signed(federation, 0, 5), roster=federation.roster, cosigners_min=0)
    ids = ids_of(federation.logs[0])
    check_log(opened, ids.__getitem__, len(ids))
    check_log(opened, ids.__getitem__, 5)
    with pytest.raises(VerificationError) as caught:
        check_log(opened, ids.__getitem__, 4)
    assert (caught.value.code, caught.value.author) == ("E_ROLLBACK", 0)
    ids[3] = ids[4]
    with pytest.raises(VerificationError) as caught:
        check_log(opened, ids.__getitem__, len(ids))
    assert (caught.value.code, caught.value.epoch) == ("E_CHECKPOINT", 0)


# --- for other tools --------------------------------------------------------------------------------


def test_the_policy_names_every_log_and_witness_once_and_the_quorum(
    federation: Federation,
) -> None:
    text = policy(federation.roster)
    assert text.isascii()
    lines = [line.split(" ") for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if line[0] == "log"] == [
        ["log", log_vkey(federation.roster, author, 0)] for author in range(4)
    ]
    assert [line for line in lines if line[0] == "witness"] == [
        ["witness", f"member-{one}", witness_vkey(federation.roster, one)] for one in range(4)
    ]
    names = ["member-0", "member-1", "member-2", "member-3"]
    assert lines[-2:] == [
        ["group", "quorum-of-members", "3", *names],
        ["quorum", "quorum-of-members"],
    ]


def test_a_vkey_is_name_hash_and_typed_key(federation: Federation) -> None:
    name, hash_, blob = witness_vkey(federation.roster, 2).split("+", 2)
    key = witness(2).public_key
    assert base64.b64decode(blob) == b"\x04" + key
    assert bytes.fromhex(hash_) == key_id(name, 4, key)
    with pytest.raises(VerificationError):
        vkey("two words", 1, key)


def test_only_a_member_s_log_gets_a_checkpoint(federation: Federation) -> None:
    with pytest.raises(VerificationError):
        make_checkpoint(roster=federation.roster, author=4, epoch=0, tree=Tree())


# --- any text ---------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.integers(0, 700), st.integers(0, 60))
def test_no_input_crashes_the_reader(junk: bytes, at: int, length: int) -> None:
    federation = Federation(1)
    data = cosigned(federation, 0, [0])
    for one in (junk, data[:at] + junk + data[at + length :]):
        if one != data:
            try:
                opened = open_checkpoint(one, roster=federation.roster)
            except VerificationError:
                continue
            assert opened.checkpoint == parse_text(parse_note(data).text)


def test_a_checkpoint_is_never_a_record_s_signature() -> None:
    """The ledger key signs both; no text of one is a text of the other."""
    federation = Federation(1)
    text = head(federation, 0).text()
    assert text.startswith(b"swarm-ledger/v1/")
    assert not text.startswith(b"swarm-ledger/record/v1\n")
    assert Signer(derive(seed_of("node 0"), "witness")).public_key != (
        federation.signers[0].public_key
    )
