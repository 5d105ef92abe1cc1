"""Our evidence before tools that no one here wrote: Go's note and tlog, pymerkle, openssl.

Where a tool is missing the test says which one and is skipped. `make test-tools` installs them.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from checkpoint_factory import cosigned, head, ids_of, signed
from ledger_factory import Federation, seed_of

from ledger.checkpoint import log_vkey, origin_of, witness_name, witness_vkey
from ledger.errors import VerificationError
from ledger.keys import derive
from ledger.merkle import (
    consistency_proof,
    inclusion_proof,
    range_root,
    verify_consistency,
    verify_inclusion,
)
from ledger.note import key_id
from ledger.prove import prove_inclusion
from ledger.timestamp import build_request, check_token
from ledger.tlog_proof import parse_inclusion
from ledger.verify import Brought, verify_bundles

Ask: TypeAlias = Callable[..., dict[str, Any]]

SIZE_MAX = 64
ENTRIES = [b"entry %d" % one for one in range(SIZE_MAX)]
LEAVES = [hashlib.sha256(b"\x00" + entry).digest() for entry in ENTRIES]
HERE = Path(__file__).parent


def leaf_at(index: int) -> bytes:
    return LEAVES[index]


def flipped(hash_: bytes) -> bytes:
    return bytes([hash_[0] ^ 1, *hash_[1:]])


@pytest.fixture(scope="module")
def federation() -> Federation:
    federation = Federation(4)
    federation.play(3)
    return federation


# --- golang.org/x/mod/sumdb -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ask_go(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Build go/main.go against the packages that Go brings along; return a way to ask it."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed (Debian: golang-go)")
    root = Path(
        subprocess.run([go, "env", "GOROOT"], check=True, capture_output=True, text=True).stdout
        .strip()
    )  # fmt: skip
    vendored = root / "src" / "cmd" / "vendor" / "golang.org" / "x"
    if not (vendored / "mod" / "sumdb" / "tlog").is_dir():
        pytest.skip(f"this Go brings no golang.org/x/mod/sumdb along under {root}")
    work = tmp_path_factory.mktemp("go")
    for module, packages in {"mod": ("sumdb/note", "sumdb/tlog"), "crypto": ("ed25519",)}.items():
        for package in packages:
            if (vendored / module / package).is_dir():
                shutil.copytree(vendored / module / package, work / "x" / module / package)
        (work / "x" / module).mkdir(parents=True, exist_ok=True)
        (work / "x" / module / "go.mod").write_text(f"module golang.org/x/{module}\n\ngo 1.19\n")
    (work / "go.mod").write_text(
        "module crosscheck\n\ngo 1.19\n\n"
        "require (\n\tgolang.org/x/crypto v0.0.0\n\tgolang.org/x/mod v0.0.0\n)\n\n"
        "replace (\n\tgolang.org/x/crypto => ./x/crypto\n\tgolang.org/x/mod => ./x/mod\n)\n"
    )
    shutil.copy(HERE / "go" / "main.go", work)
    environment = os.environ | {
        "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOWORK": "off",
        "CGO_ENABLED": "0", "GOCACHE": os.environ.get("GOCACHE", str(work / "cache")),
    }  # fmt: skip
    built = subprocess.run(
        [go, "build", "-o", "crosscheck", "."],
        cwd=work, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr

    def ask(**question: Any) -> dict[str, Any]:
        done = subprocess.run(
            [str(work / "crosscheck")],
            input=json.dumps(question), check=True, capture_output=True, text=True,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return ask


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(value: Any) -> Any:
    return [unb64(one) for one in value] if isinstance(value, list) else base64.b64decode(value)


def test_go_makes_the_same_roots_and_proofs_up_to_64_leaves(ask_go: Ask) -> None:
    answer = ask_go(Leaves=[b64(leaf) for leaf in LEAVES])
    for size in range(1, SIZE_MAX + 1):
        assert base64.b64decode(answer["Roots"][size - 1]) == range_root(leaf_at, 0, size)
        inclusions = [list(inclusion_proof(leaf_at, at, size)) for at in range(size)]
        assert unb64(answer["Inclusions"][size - 1]) == inclusions
        consistency = [list(consistency_proof(leaf_at, at + 1, size)) for at in range(size)]
        assert unb64(answer["Consistency"][size - 1]) == consistency


def inclusion(index: int, size: int, *proof: bytes) -> dict[str, Any]:
    root = range_root(leaf_at, 0, size)
    return {
        "Proof": [b64(one) for one in proof], "Size": size, "At": index,
        "Root": b64(root), "Leaf": b64(LEAVES[index]),
    }  # fmt: skip


def extension(old_size: int, size: int, *proof: bytes) -> dict[str, Any]:
    return {
        "Proof": [b64(one) for one in proof], "Size": size, "OldSize": old_size,
        "Root": b64(range_root(leaf_at, 0, size)),
        "OldRoot": b64(range_root(leaf_at, 0, old_size)),
    }  # fmt: skip


def variants(proof: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """The proof itself, then forgeries of it."""
    bad = [(*proof[:at], flipped(one), *proof[at + 1 :]) for at, one in enumerate(proof)]
    return [proof, *bad, *(proof[:at] for at in range(len(proof))), (*proof, LEAVES[0])]


def accepts(call: Callable[[], None]) -> bool:
    try:
        call()
    except VerificationError:
        return False
    return True


def test_go_accepts_and_refuses_the_same_proofs(ask_go: Ask) -> None:
    records, trees, ours = [], [], []
    for size in range(1, 34):
        for index in range(size):
            root = range_root(leaf_at, 0, size)
            for proof in variants(inclusion_proof(leaf_at, index, size)):
                records.append(inclusion(index, size, *proof))
                ours.append(
                    accepts(
                        lambda i=index, n=size, r=root, p=proof: verify_inclusion(
                            LEAVES[i], i, size=n, root=r, proof=p
                        )
                    )
                )
    for size in range(1, 34):
        for old_size in range(1, size + 1):
            root, old_root = range_root(leaf_at, 0, size), range_root(leaf_at, 0, old_size)
            for proof in variants(consistency_proof(leaf_at, old_size, size)):
                trees.append(extension(old_size, size, *proof))
                ours.append(
                    accepts(
                        lambda o=old_size, s=old_root, n=size, r=root, p=proof: verify_consistency(
                            old_size=o, old_root=s, size=n, root=r, proof=p
                        )
                    )
                )
    answer = ask_go(Records=records, Trees=trees)
    assert answer["Accepted"] == ours
    assert ours.count(True) == 2 * 33 * 34 // 2


def test_go_opens_our_checkpoint_and_finds_every_signer(
    ask_go: Ask, federation: Federation
) -> None:
    roster = federation.roster
    data = cosigned(federation, 2, [0, 1, 3]).decode()
    witnesses = [witness_vkey(roster, one) for one in (0, 1, 3)]
    net = federation.charter.net
    answer = ask_go(Open={"Note": data, "Logs": [log_vkey(roster, 2, 0)], "Witnesses": witnesses})
    assert answer["Error"] == ""
    assert answer["Text"].encode() == head(federation, 2).text()
    names = [witness_name(net, one) for one in (0, 1, 3)]
    assert answer["Verified"] == [origin_of(net, 2, 0), *names]
    # Who knows the log's key only sees the rest as unknown.
    answer = ask_go(Open={"Note": data, "Logs": [log_vkey(roster, 2, 0)]})
    assert (answer["Verified"], answer["Unverified"]) == ([origin_of(net, 2, 0)], names)
    # A member's signature is not the log's: who asks only for some signature must look whose it is.
    other = {"Logs": [log_vkey(roster, 1, 0)], "Witnesses": witnesses}
    assert ask_go(Open={"Note": data, **other})["Verified"] == names
    assert ask_go(Open={"Note": data, "Logs": other["Logs"]})["Error"]
    forged = data.replace("\n10\n", "\n11\n")
    assert ask_go(Open={"Note": forged, "Logs": [log_vkey(roster, 2, 0)]})["Error"]
    assert ask_go(Open={"Note": forged, "Witnesses": witnesses})["Error"]


def test_go_signs_the_same_bytes(ask_go: Ask, federation: Federation) -> None:
    name = origin_of(federation.charter.net, 1, 0)
    seed = derive(seed_of("node 1"), "ledger")
    id_ = key_id(name, 1, federation.signers[1].public_key).hex()
    key = f"PRIVATE+KEY+{name}+{id_}+{b64(bytes([1]) + seed)}"
    answer = ask_go(Sign={"Text": head(federation, 1).text().decode(), "Key": key})
    assert answer["Error"] == ""
    assert answer["Note"].encode() == signed(federation, 1)


def test_go_checks_our_proof_file(ask_go: Ask, federation: Federation, tmp_path: Path) -> None:
    bundle = federation.bundle(tmp_path / "bundle")
    roster = federation.roster
    keys = {
        "Logs": [log_vkey(roster, 2, 0)],
        "Witnesses": [witness_vkey(roster, one) for one in range(4)],
    }
    for seq, one in enumerate(federation.logs[2]):
        made = prove_inclusion(bundle, f"2/0/{seq}", checkpoint=cosigned(federation, 2, [0, 1, 2]))
        answer = ask_go(Proof={"Note": made.data.decode(), "Leaf": b64(one.id), **keys})
        assert (answer["Error"], len(answer["Verified"])) == ("", 4)
        other = replace(parse_inclusion(made.data), index=(seq + 1) % 10).encode().decode()
        assert ask_go(Proof={"Note": other, "Leaf": b64(one.id), **keys})["Error"]


# --- pymerkle ---------------------------------------------------------------------------------------


def test_pymerkle_makes_the_same_roots_and_accepts_our_proofs() -> None:
    pymerkle = pytest.importorskip("pymerkle", reason="pymerkle is not installed (extra dev)")
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in ENTRIES:
        tree.append_entry(entry)
    for size in range(1, SIZE_MAX + 1):
        root = range_root(leaf_at, 0, size)
        assert tree.get_root(size) == root
        for index in range(size):
            proof = tree.prove_inclusion(index + 1, size)  # counts from 1, begins with the leaf
            ours = inclusion_proof(leaf_at, index, size)
            assert proof.path == [LEAVES[index], *ours]
            proof.path = [LEAVES[index], *ours]
            pymerkle.verify_inclusion(LEAVES[index], root, proof, index=index + 1, size=size)
            # Its consistency proofs have a layout of their own; they must lead to our roots.
            old_root = range_root(leaf_at, 0, index + 1)
            extension = tree.prove_consistency(index + 1, size)
            pymerkle.verify_consistency(old_root, root, extension, index + 1, size)


# --- openssl ts -------------------------------------------------------------------------------------

AUTHORITY = """\
[tsa]
default_tsa = one
[one]
serial = {directory}/serial
crypto_device = builtin
signer_cert = {directory}/tsa.pem
certs = {directory}/ca.pem
signer_key = {directory}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
[extensions]
extendedKeyUsage = critical,timeStamping
"""


def openssl(*arguments: object, ok: bool = True) -> str:
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away time-stamping authority, as a directory."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("tsa")
    config = directory / "tsa.cnf"
    config.write_text(AUTHORITY.format(directory=directory))
    (directory / "serial").write_text("01\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", directory / "ca.key", "-out", directory / "ca.pem",
            "-subj", "/CN=Test root", "-days", 2)  # fmt: skip
    openssl("req", *key, "-keyout", directory / "tsa.key", "-out", directory / "tsa.csr",
            "-subj", "/CN=Test authority")  # fmt: skip
    openssl("x509", "-req", "-in", directory / "tsa.csr", "-CA", directory / "ca.pem",
            "-CAkey", directory / "ca.key", "-CAcreateserial", "-out", directory / "tsa.pem",
            "-days", 2, "-extfile", config, "-extensions", "extensions")  # fmt: skip
    return directory


def stamp(authority: Path, request: bytes, name: str, *options: str) -> bytes:
    (authority / f"{name}.tsq").write_bytes(request)
    openssl("ts", "-reply", "-config", authority / "tsa.cnf", "-queryfile",
            authority / f"{name}.tsq", "-out", authority / f"{name}.tsr", *options)  # fmt: skip
    return (authority / f"{name}.tsr").read_bytes()


def test_openssl_writes_the_same_request(authority: Path, federation: Federation) -> None:
    data = cosigned(federation, 0, [0, 1, 2])
    file, out = authority / "checkpoint", authority / "theirs.tsq"
    file.write_bytes(data)
    openssl("ts", "-query", "-data", file, "-sha256", "-cert", "-no_nonce", "-out", out)
    assert out.read_bytes() == build_request(hashlib.sha256(data).digest())
    ours = authority / "nonce.tsq"
    ours.write_bytes(build_request(hashlib.sha256(data).digest(), nonce=0xFEDCBA9876543210))
    text = openssl("ts", "-query", "-in", ours, "-text")
    assert "Nonce: 0xFEDCBA9876543210" in text
    assert "Certificate required: yes" in text
    assert "Hash Algorithm: sha256" in text


def test_openssl_stamps_and_verifies_a_checkpoint_file(
    authority: Path, federation: Federation
) -> None:
    data = cosigned(federation, 0, [0, 1, 2])
    digest = hashlib.sha256(data).digest()
    file = authority / "0000-0000.checkpoint"
    file.write_bytes(data)
    reply = stamp(authority, build_request(digest, nonce=1 << 63), "good")
    token = stamp(authority, build_request(digest, nonce=1 << 63), "bare", "-token_out")
    for evidence in (reply, token):
        claim = check_token(evidence, digest, nonce=1 << 63)
        assert claim.nonce == 1 << 63
        assert claim.policy_oid == bytes.fromhex("2a0304")
    verify = ("ts", "-verify", "-data", file, "-CAfile", authority / "ca.pem")
    assert "Verification: OK" in openssl(*verify, "-in", authority / "good.tsr")
    assert "Verification: OK" in openssl(*verify, "-in", authority / "bare.tsr", "-token_in")
    # Another file: openssl and we refuse both.
    other = data.replace(b"\n10\n", b"\n11\n")
    assert other != data
    file.write_bytes(other)
    openssl(*verify, "-in", authority / "good.tsr", ok=False)
    with pytest.raises(VerificationError) as caught:
        check_token(reply, hashlib.sha256(other).digest())
    assert caught.value.code == "E_TIMESTAMP"


def test_records_under_a_real_token_are_timestamped(
    authority: Path, federation: Federation, tmp_path: Path
) -> None:
    data = cosigned(federation, 0, [0, 1, 2])
    bundle = federation.bundle(tmp_path / "bundle")
    (bundle / "checkpoints").mkdir()
    (bundle / "checkpoints" / "0000-0000.txt").write_bytes(data)
    reply = stamp(authority, build_request(hashlib.sha256(data).digest()), "bundle")
    (tmp_path / "token.tsr").write_bytes(reply)
    brought = Brought(tokens=[tmp_path / "token.tsr"])
    report = verify_bundles([bundle], federation.charter_bytes, brought=brought)
    assert report.verdict == "VERIFIED"
    assert report.anchored == report.timestamped == len(federation.logs[0])
    assert "openssl ts -verify" in report.missing[-1]


def test_a_refusal_by_a_real_authority_is_no_token(authority: Path) -> None:
    digest = hashlib.sha256(b"").digest()
    sha1 = bytes.fromhex("2b0e03021a")  # not among the authority's digests
    request = build_request(digest)
    wrong = request.replace(bytes.fromhex("608648016503040201"), sha1 + bytes(4))
    reply = stamp(authority, wrong, "wrong")
    with pytest.raises(VerificationError, match="did not grant"):
        check_token(reply, digest)


def test_the_records_of_a_real_log_are_the_leaves(federation: Federation) -> None:
    """What every tool above is given: ids of records as an exporter writes them."""
    for log in federation.logs:
        ids = [hashlib.sha256(b"\x00" + one.signed.record_bytes).digest() for one in log]
        assert ids == ids_of(log)
