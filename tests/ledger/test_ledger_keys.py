"""Keys of one seed have nothing in common; weak keys and foreign signatures are refused."""

import hashlib

import pytest

from ledger import keys
from ledger.errors import VerificationError

SEED = bytes(range(32))


def test_every_purpose_and_epoch_has_its_own_key() -> None:
    derived = [keys.derive(SEED, purpose, epoch) for purpose in keys.PURPOSES for epoch in (0, 1)]
    assert len({*derived, SEED}) == len(derived) + 1
    assert keys.derive(SEED, "ledger") == keys.derive(SEED, "ledger", 0)


def test_the_derivation_is_hmac_sha_256_as_written_down() -> None:
    message = b"swarm-ledger/kdf/v1\n" + b"witness" + b"\n" + bytes([0, 0, 1, 2])
    key = SEED + bytes(32)
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + message).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()
    assert keys.derive(SEED, "witness", 258) == outer


@pytest.mark.parametrize(
    ("seed", "purpose", "epoch"),
    [(SEED, "leger", 0), (SEED[:31], "ledger", 0), (SEED, "ledger", 2**32), (SEED, "ledger", -1)],
)
def test_a_wrong_derivation_is_our_own_bug(seed: bytes, purpose: str, epoch: int) -> None:
    with pytest.raises(ValueError, match=r"purpose|seed"):
        keys.derive(seed, purpose, epoch)


def test_seeds_are_fresh() -> None:
    assert keys.generate_seed() != keys.generate_seed()
    assert len(keys.generate_seed()) == keys.SEED_BYTES


def test_signing_is_the_rfc_8032_vector() -> None:
    seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    signer = keys.Signer(bytes.fromhex(seed))
    assert signer.public_key.hex().startswith("d75a980182b10ab7")
    assert signer.sign(b"").hex().startswith("e5564300c360ac72")
    keys.verify(signer.public_key, b"", signer.sign(b""))


def test_a_signer_does_not_show_its_secret() -> None:
    signer = keys.Signer(SEED)
    assert SEED.hex() not in repr(signer)
    with pytest.raises(ValueError, match="32 bytes"):
        keys.Signer(SEED[:5])


@pytest.mark.parametrize("change", ["message", "signature", "key", "length", "key length"])
def test_what_was_not_signed_does_not_verify(change: str) -> None:
    signer = keys.Signer(SEED)
    message, signature, key = b"message", signer.sign(b"message"), signer.public_key
    if change == "message":
        message += b"!"
    elif change == "signature":
        signature = signature[:-1] + bytes([signature[-1] ^ 1])
    elif change == "key":
        key = keys.Signer(bytes(32)).public_key
    elif change == "length":
        signature += b"\0"
    else:
        key = key[:31]
    with pytest.raises(VerificationError) as caught:
        keys.verify(key, message, signature)
    assert caught.value.code == "E_SIGNATURE"


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),  # y = 0, order 4
        bytes([1]) + bytes(31),  # the neutral element
        bytes.fromhex("ec" + "ff" * 30 + "7f"),  # order 2
        bytes.fromhex("ed" + "ff" * 30 + "7f"),  # y = p: another spelling of 0
        bytes.fromhex(
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
        ),  # order 8
        b"\x02" + bytes(31),  # on no curve
        bytes(31),
    ],
)
def test_weak_keys_are_refused(key: bytes) -> None:
    with pytest.raises(VerificationError) as caught:
        keys.check_public_key(key)
    assert caught.value.code == "E_WEAK_KEY"


def test_derived_keys_are_not_weak() -> None:
    for purpose in keys.PURPOSES:
        keys.check_public_key(keys.Signer(keys.derive(SEED, purpose)).public_key)
