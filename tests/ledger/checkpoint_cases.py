"""What an auditor may be handed of checkpoints, pins and tokens: one attack for every code."""

import base64
import hashlib
from dataclasses import replace

from checkpoint_factory import TIME_S, cosignature, cosigned, head, ids_of, signed, tree_of, witness
from ledger_cases import Case, Files, bad, case, files_of
from ledger_factory import Federation, digest_of
from token_factory import imprint, info, token

from ledger.checkpoint import Checkpoint, attach, sign, witness_name
from ledger.keys import Signer
from ledger.note import COSIGNATURE_ED25519, SignatureLine, key_id

QUORUM = (0, 1, 3)


def played() -> Federation:
    """Four members, one round: q = 3, four records in each log."""
    federation = Federation(4)
    federation.play(1)
    return federation


def name_of(author: int) -> str:
    return f"checkpoints/{author:04d}-0000.txt"


def with_checkpoint(federation: Federation, data: bytes, author: int = 2) -> Files:
    return files_of(federation) | {name_of(author): data}


def spoilt(codes: str, data: bytes, federation: Federation | None = None) -> Case:
    federation = federation or played()
    return bad(federation, with_checkpoint(federation, data), codes=codes)


def cosigned_by_liars(federation: Federation, checkpoint: Checkpoint) -> bytes:
    """Return whatever an author and a quorum sign, true or not."""
    data = sign(checkpoint, federation.signers[checkpoint.author])
    lines = [cosignature(federation, data, member) for member in QUORUM]
    return attach(data, lines, roster=federation.roster)


def other_root(federation: Federation, author: int = 2, size: int = 4) -> Checkpoint:
    ids = [*ids_of(federation.logs[author])[: size - 1], digest_of("another record")]
    return replace(head(federation, author, size), root=tree_of(ids).root())


def token_for(data: bytes) -> bytes:
    return token(info(of=imprint(hashlib.sha256(data).digest())))


# --- what must be accepted ----------------------------------------------------------------------------


@case
def checkpoints_anchor_what_lies_under_them() -> Case:
    federation = played()
    files = files_of(federation)
    for author, size in enumerate((4, 4, 3, 1)):
        files[name_of(author)] = cosigned(federation, author, QUORUM, size)
    return replace(bad(federation, files), anchored=12)


@case
def checkpoints_of_two_bundles_differ_in_size() -> Case:
    federation = played()
    bundles = [
        with_checkpoint(federation, cosigned(federation, 2, members, size))
        for members, size in ((QUORUM, 4), ((0, 1, 2, 3), 2))
    ]
    return replace(bad(federation, *bundles), anchored=4)


@case
def pin_below_the_log_s_end() -> Case:
    federation = played()
    return replace(bad(federation), pins=[signed(federation, 2, 2)])


@case
def pin_with_a_quorum_anchors_and_may_have_a_public_witness() -> Case:
    federation = played()
    pin = cosigned(federation, 2, QUORUM, 3) + SignatureLine("example.org", b"1234", b"?").encode()
    return replace(bad(federation), pins=[pin], anchored=3)


@case
def token_of_a_checkpoint_leaves_its_own_signature_to_openssl() -> Case:
    federation = played()
    data = cosigned(federation, 2, QUORUM, 3)
    good = bad(federation, with_checkpoint(federation, data), missing=1)
    return replace(good, tokens=[token_for(data)], anchored=3, timestamped=3)


@case
def token_of_a_pin_below_the_quorum_stamps_no_record() -> Case:
    federation = played()
    pin = signed(federation, 2, 3)
    return replace(bad(federation, missing=1), pins=[pin], tokens=[token_for(pin)])


# --- step 16 ------------------------------------------------------------------------------------------


@case
def checkpoint_root_not_that_of_the_records() -> Case:
    federation = played()
    data = cosigned_by_liars(federation, other_root(federation))
    return spoilt("16 E_CHECKPOINT", data)


@case
def checkpoint_signed_by_another_key() -> Case:
    federation = played()
    data = sign(head(federation, 2), federation.signers[1])
    return spoilt("16 E_CHECKPOINT", data + cosigned(federation, 2, QUORUM).split(b"\n", 5)[5])


@case
def checkpoint_with_crlf() -> Case:
    return spoilt("16 E_CHECKPOINT", cosigned(played(), 2, QUORUM).replace(b"\n", b"\r\n"))


@case
def checkpoint_under_another_log_s_name() -> Case:
    return spoilt("16 E_CHECKPOINT", cosigned(played(), 1, QUORUM))


@case
def checkpoint_of_another_network() -> Case:
    other = Federation(4, "\n# another file\n")
    other.play(1)
    return spoilt("16 E_CHECKPOINT", cosigned(other, 2, QUORUM))


@case
def checkpoint_of_no_record() -> Case:
    return spoilt("16 E_CHECKPOINT", cosigned(played(), 2, QUORUM, 0))


@case
def checkpoint_without_its_last_newline() -> Case:
    return spoilt("16 E_CHECKPOINT", cosigned(played(), 2, QUORUM)[:-1])


@case
def checkpoint_too_long() -> Case:
    return spoilt("16 E_CHECKPOINT", cosigned(played(), 2, QUORUM) + bytes(65_536))


@case
def cosignatures_below_the_quorum() -> Case:
    return spoilt("16 E_QUORUM", cosigned(played(), 2, (0, 2)))


@case
def cosignature_twice() -> Case:
    data = cosigned(played(), 2, QUORUM)
    return spoilt("16 E_COSIGN", data + data.splitlines(keepends=True)[-1])


@case
def cosignature_under_another_member_s_name() -> Case:
    federation = played()
    data = cosigned(federation, 2, QUORUM)
    was, now = (witness_name(federation.roster.net, one).encode() for one in (3, 2))
    return spoilt("16 E_COSIGN", data.replace(was, now))


@case
def cosignature_under_another_member_s_name_and_key_id() -> Case:
    federation = played()
    data = cosigned(federation, 2, (0, 1))
    line = cosignature(federation, signed(federation, 2), 3).split(b" ")
    name = witness_name(federation.roster.net, 2)
    blob = base64.b64decode(line[2])[4:]
    id_ = key_id(name, COSIGNATURE_ED25519, witness(2).public_key)
    return spoilt("16 E_COSIGN", data + SignatureLine(name, id_, blob).encode())


@case
def cosignature_of_a_stranger() -> Case:
    stranger = Signer(digest_of("stranger"))
    id_ = key_id("example.org", COSIGNATURE_ED25519, stranger.public_key)
    line = SignatureLine("example.org", id_, TIME_S.to_bytes(8, "big") + bytes(64)).encode()
    return spoilt("16 E_COSIGN", cosigned(played(), 2, QUORUM) + line)


@case
def cosignature_of_another_size() -> Case:
    federation = played()
    data = cosigned(federation, 2, (0, 1))
    return spoilt("16 E_COSIGN", data + cosignature(federation, signed(federation, 2, 3), 3))


@case
def pin_that_is_no_checkpoint() -> Case:
    return replace(bad(played(), codes="16 E_CHECKPOINT"), pins=[b"swarm-ledger/v1/"])


@case
def checkpoint_under_no_log_s_name() -> Case:
    federation = played()
    files = files_of(federation) | {"checkpoints/2-0.txt": cosigned(federation, 2, QUORUM)}
    return bad(federation, files, codes="4 E_BUNDLE")


# --- step 17 ------------------------------------------------------------------------------------------


@case
def tail_dropped_below_a_checkpoint() -> Case:
    federation = played()
    data = cosigned(federation, 2, QUORUM)
    federation.logs[2].pop()  # nobody has acked it
    return spoilt("17 E_ROLLBACK", data, federation)


@case
def log_dropped_above_a_checkpoint() -> Case:
    federation = Federation(4)
    federation.open_all()
    files = with_checkpoint(federation, cosigned(federation, 2, QUORUM))
    del files["logs/0002-0000.log"]
    return bad(federation, files, codes="17 E_ROLLBACK")


@case
def tail_dropped_below_a_pin() -> Case:
    federation = played()
    pin = signed(federation, 2)
    federation.logs[2].pop()
    return replace(bad(federation, codes="17 E_ROLLBACK"), pins=[pin])


@case
def pin_with_another_root() -> Case:
    federation = played()
    pin = sign(other_root(federation), federation.signers[2])
    return replace(bad(federation, codes="17 E_INCONSISTENT"), pins=[pin])


@case
def checkpoint_of_another_history_in_another_bundle() -> Case:
    federation = played()
    files = with_checkpoint(federation, cosigned_by_liars(federation, other_root(federation)))
    del files["logs/0002-0000.log"]
    return bad(federation, files_of(federation), files, codes="17 E_INCONSISTENT")


@case
def two_histories_each_with_its_checkpoint() -> Case:
    bundles = []
    for samples in (100, 200):
        federation = Federation(4)
        federation.open_all()
        body = federation.contribution_body(2, 1, samples=samples)
        federation.write(2, 2, 1, body)
        bundles.append(with_checkpoint(federation, cosigned(federation, 2, QUORUM)))
    return bad(federation, *bundles, codes="9 E_FORK, 9 E_FORK, 17 E_INCONSISTENT")


# --- step 18 ------------------------------------------------------------------------------------------


@case
def token_of_another_file() -> Case:
    federation = played()
    data = cosigned(federation, 2, QUORUM)
    good = bad(federation, with_checkpoint(federation, data), codes="18 E_TIMESTAMP")
    return replace(good, tokens=[token_for(data + b"\n")], anchored=4)


@case
def token_that_is_none() -> Case:
    return replace(bad(played(), codes="18 E_TIMESTAMP"), tokens=[b"0\x03\x02\x01\x00"])
