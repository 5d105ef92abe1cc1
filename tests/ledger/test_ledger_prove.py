"""Proof files: what swarm-audit prove makes, what check believes, and every forgery of one."""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_factory import consistency, cosignature, cosigned, head, signed, tree_of
from hypothesis import given
from hypothesis import strategies as st
from ledger_factory import Federation, frames

from ledger import cli
from ledger.checkpoint import attach, make_checkpoint, open_checkpoint, policy, sign
from ledger.errors import ConfigError, VerificationError
from ledger.merkle import PROOF_HASHES_MAX
from ledger.prove import check_proof, prove_consistency, prove_inclusion
from ledger.tlog_proof import (
    FILE_BYTES_MAX,
    InclusionFile,
    open_consistency,
    open_inclusion,
    open_record_proof,
    parse_consistency,
    parse_inclusion,
)


@pytest.fixture(scope="module")
def federation() -> Federation:
    federation = Federation(4)
    federation.play(3)  # 10 records a log
    return federation


@pytest.fixture(scope="module")
def bundle(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return federation.bundle(tmp_path_factory.mktemp("prove") / "bundle")


@pytest.fixture
def proof(federation: Federation, bundle: Path) -> bytes:
    return prove_inclusion(bundle, "2/0/5", checkpoint=cosigned(federation, 2, [0, 1, 2], 9)).data


# --- what is made -----------------------------------------------------------------------------------


def test_a_proof_file_reads_as_the_specification_shows(
    federation: Federation, proof: bytes
) -> None:
    checkpoint = cosigned(federation, 2, [0, 1, 2], 9)
    envelope = federation.logs[2][5].signed.envelope()
    text, rest = proof.split(b"\n\n", 1)
    assert rest == checkpoint
    magic, extra, index, *hashes = text.decode().split("\n")
    assert magic == "c2sp.org/tlog-proof@v1"
    assert extra == "extra " + base64.b64encode(envelope).decode()
    assert index == "index 5"
    assert len(hashes) == 4
    assert base64.b64decode(hashes[0]) == federation.logs[2][4].id  # the sibling first
    assert parse_inclusion(proof).encode() == proof


def test_every_record_under_a_checkpoint_can_be_proved(
    federation: Federation, bundle: Path
) -> None:
    for size in (1, 4, 10):
        checkpoint = cosigned(federation, 1, [0, 2, 3], size)
        for seq, one in enumerate(federation.logs[1][:size]):
            made = prove_inclusion(bundle, one.id.hex(), checkpoint=checkpoint)
            assert made.missing == ()
            assert made == prove_inclusion(bundle, f"1/0/{seq}", checkpoint=checkpoint)
            record, opened = open_record_proof(made.data, rosters=[federation.roster])
            assert (record.id, record.value.seq) == (one.id, seq)
            assert opened.checkpoint == head(federation, 1, size)
            open_inclusion(made.data, leaf=one.id, roster=federation.roster)


def test_what_a_proof_lacks_is_named(federation: Federation, bundle: Path) -> None:
    made = prove_inclusion(bundle, "0/0/0")
    assert made.missing == ("nobody signed the checkpoint",)
    assert made.data.endswith(head(federation, 0).text() + b"\n")
    with pytest.raises(VerificationError):  # a note without signatures convinces nobody
        open_record_proof(made.data, rosters=[federation.roster], finished=False)
    made = prove_inclusion(bundle, "0/0/0", checkpoint=cosigned(federation, 0, [1]))
    assert made.missing == ("1 of 4 members cosigned, 3 are needed",)
    assert check_proof(made.data, rosters=[federation.roster])[2] == made.missing
    with pytest.raises(VerificationError) as caught:
        open_record_proof(made.data, rosters=[federation.roster])
    assert caught.value.code == "E_QUORUM"


def test_a_consistency_file_is_a_witness_s_request(federation: Federation, bundle: Path) -> None:
    old, new = cosigned(federation, 3, [0, 1, 2], 3), cosigned(federation, 3, [0, 1, 3], 9)
    made = prove_consistency(bundle, old, checkpoint=new)
    text, rest = made.data.split(b"\n\n", 1)
    assert (text.decode().split("\n")[0], rest, made.missing) == ("old 3", new, ())
    assert parse_consistency(made.data).proof == consistency(federation, 3, 3, 9)
    opened = open_checkpoint(old, roster=federation.roster)
    assert open_consistency(made.data, old=opened, roster=federation.roster).data == new
    head_only = prove_consistency(bundle, old)
    assert head_only.checkpoint == head(federation, 3)
    assert head_only.missing == ("nobody signed the checkpoint",)


# --- what is refused --------------------------------------------------------------------------------


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(VerificationError) as caught:
        call()
    return caught.value.code


def test_a_bundle_shorter_than_the_checkpoint_is_a_rollback(
    federation: Federation, tmp_path: Path
) -> None:
    short = federation.bundle(tmp_path / "short", [5, 5, 5, 5])
    checkpoint = cosigned(federation, 2, [0, 1, 2], 9)
    assert code_of(lambda: prove_inclusion(short, "2/0/1", checkpoint=checkpoint)) == "E_ROLLBACK"
    assert code_of(lambda: prove_consistency(short, checkpoint)) == "E_ROLLBACK"


def test_a_rewritten_log_does_not_match_its_checkpoint(
    federation: Federation, tmp_path: Path
) -> None:
    other = Federation(4)
    other.open_all()
    for round_ in range(1, 10):
        other.write(2, 2, round_, other.contribution_body(2, round_, samples=7))
    rewritten = other.bundle(tmp_path / "rewritten")
    checkpoint = cosigned(federation, 2, [0, 1, 2], 9)
    call = lambda: prove_inclusion(rewritten, "2/0/5", checkpoint=checkpoint)  # noqa: E731
    assert code_of(call) == "E_CHECKPOINT"
    assert code_of(lambda: prove_consistency(rewritten, checkpoint)) == "E_CHECKPOINT"


def test_nothing_is_proved_of_a_log_that_an_audit_refuses(
    federation: Federation, tmp_path: Path
) -> None:
    damaged = federation.bundle(tmp_path / "damaged")
    path = damaged / "logs" / "0002-0000.log"
    envelopes = [one.signed.envelope() for one in federation.logs[2]]
    path.write_bytes(frames([*envelopes[:3], envelopes[3][:-1] + b"\0", *envelopes[4:]]))
    with pytest.raises(VerificationError) as caught:
        prove_inclusion(damaged, "2/0/1")
    assert (caught.value.code, caught.value.seq) == ("E_SIGNATURE", 3)
    path.write_bytes(frames([envelopes[0], *envelopes[2:]]))
    assert code_of(lambda: prove_inclusion(damaged, "2/0/1")) == "E_GAP"
    path.write_bytes(frames(one.signed.envelope() for one in federation.logs[1]))
    assert code_of(lambda: prove_inclusion(damaged, "2/0/1")) == "E_AUTHOR_MISMATCH"


def changed(data: bytes, **changes: object) -> bytes:
    return replace(parse_inclusion(data), **changes).encode()


def test_every_tampered_proof_file_is_refused(federation: Federation, proof: bytes) -> None:
    roster, file = federation.roster, parse_inclusion(proof)
    others = [one.signed.envelope() for one in (*federation.logs[2], *federation.logs[1])]
    forged = [
        *(changed(proof, index=index) for index in range(12) if index != 5),
        *(changed(proof, extra=one) for one in others if one != file.extra),
        changed(proof, extra=None),
        changed(proof, extra=b""),
        *(changed(proof, proof=file.proof[:cut]) for cut in range(4)),
        changed(proof, proof=(*file.proof, bytes(32))),
        changed(proof, proof=file.proof[::-1]),
        changed(proof, proof=(bytes(32), *file.proof[1:])),
        changed(proof, checkpoint=cosigned(federation, 2, [0, 1, 2], 10)),
        changed(proof, checkpoint=cosigned(federation, 1, [0, 1, 2], 9)),
        changed(proof, checkpoint=signed(federation, 2, 9)),
    ]
    open_record_proof(proof, rosters=[roster])
    for one in forged:
        with pytest.raises(VerificationError):
            open_record_proof(one, rosters=[roster])


def test_a_record_in_another_place_of_the_tree_is_refused(federation: Federation) -> None:
    """A log that hashed another member's record into its own tree."""
    stolen = federation.logs[1][0]
    tree = tree_of([stolen.id])
    checkpoint = make_checkpoint(roster=federation.roster, author=2, epoch=0, tree=tree)
    data = sign(checkpoint, federation.signers[2])
    lines = [cosignature(federation, data, member) for member in (0, 1, 2)]
    data = attach(data, lines, roster=federation.roster)
    file = InclusionFile(index=0, proof=(), checkpoint=data, extra=stolen.signed.envelope())
    call = lambda: open_record_proof(file.encode(), rosters=[federation.roster])  # noqa: E731
    assert code_of(call) == "E_CHECKPOINT"
    open_inclusion(file.encode(), leaf=stolen.id, roster=federation.roster)  # it is in that tree


def test_a_tampered_consistency_file_is_refused(federation: Federation, bundle: Path) -> None:
    roster = federation.roster
    made = prove_consistency(
        bundle, cosigned(federation, 3, [0, 1, 2], 3), checkpoint=cosigned(federation, 3, [0, 1, 3])
    )
    file = parse_consistency(made.data)
    old = open_checkpoint(signed(federation, 3, 3), roster=roster, cosigners_min=0)
    olds = [
        open_checkpoint(signed(federation, author, size), roster=roster, cosigners_min=0)
        for author, size in ((3, 4), (3, 2), (2, 3))
    ]
    open_consistency(made.data, old=old, roster=roster)
    for other in olds:
        assert code_of(lambda o=other: open_consistency(made.data, old=o, roster=roster)) == (
            "E_CHECKPOINT"
        )  # fmt: skip
    for forged in (
        replace(file, old_size=4),
        replace(file, proof=file.proof[1:]),
        replace(file, proof=(*file.proof, bytes(32))),
        replace(file, checkpoint=cosigned(federation, 3, [0, 1, 2], 9)),
    ):
        with pytest.raises(VerificationError):
            open_consistency(forged.encode(), old=old, roster=roster)


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "another version": lambda data: data.replace(b"@v1", b"@v2"),
    "no magic": lambda data: data.split(b"\n", 1)[1],
    "carriage returns": lambda data: data.replace(b"\n", b"\r\n"),
    "no blank line": lambda data: data.replace(b"\n\n", b"\n"),
    "two blank lines": lambda data: data.replace(b"\n\n", b"\n\n\n", 1),
    "extra twice": lambda data: data.replace(b"\nindex", b"\nextra AA==\nindex"),
    "extra after the index": lambda data: data.replace(b"index 5\n", b"index 5\nextra AA==\n"),
    "extra that is not base64": lambda data: data.replace(b"extra ", b"extra *"),
    "extra without a space": lambda data: data.replace(b"extra ", b"extra"),
    "no index": lambda data: data.replace(b"index 5\n", b""),
    "a leading zero": lambda data: data.replace(b"index 5", b"index 05"),
    "a sign": lambda data: data.replace(b"index 5", b"index +5"),
    "a negative index": lambda data: data.replace(b"index 5", b"index -5"),
    "an index past 2^53": lambda data: data.replace(b"index 5", b"index 9007199254740992"),
    "an index in capitals": lambda data: data.replace(b"index 5", b"Index 5"),
    "a hash that is not base64": lambda data: data.replace(b"index 5\n", b"index 5\n*"),
    "a hash of 31 bytes": lambda data: data.replace(
        b"index 5\n", b"index 5\n" + base64.b64encode(bytes(31)) + b"\n"
    ),
    "more hashes than any tree has": lambda data: data.replace(
        b"index 5\n", b"index 5\n" + (base64.b64encode(bytes(32)) + b"\n") * (PROOF_HASHES_MAX + 1)
    ),
    "not utf-8": lambda data: b"\xff" + data,
    "more than the limit": lambda data: data + b"x" * FILE_BYTES_MAX,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_another_spelling_is_no_proof(name: str, proof: bytes) -> None:
    bad = SPELLINGS[name](proof)
    assert bad != proof
    if name == "two blank lines":  # the form of the proof holds; the checkpoint's does not
        with pytest.raises(VerificationError):
            open_inclusion(bad, leaf=bytes(32), roster=Federation(4).roster)
        return
    assert code_of(lambda: parse_inclusion(bad)) == "E_CHECKPOINT"
    assert code_of(lambda: parse_consistency(proof)) == "E_CHECKPOINT"


@given(st.binary(max_size=200), st.integers(0, 900), st.integers(0, 60))
def test_no_input_crashes_the_reader(junk: bytes, at: int, length: int) -> None:
    data = InclusionFile(index=3, proof=(bytes(32),) * 3, checkpoint=b"c" * 500).encode()
    for parse in (parse_inclusion, parse_consistency):
        for one in (junk, data[:at] + junk + data[at + length :]):
            try:
                assert parse(one).encode() == one
            except VerificationError:
                continue


# --- the command line -------------------------------------------------------------------------------


@pytest.fixture
def files(federation: Federation, tmp_path: Path) -> Path:
    (tmp_path / "charter.toml").write_bytes(federation.charter_bytes)
    (tmp_path / "old").write_bytes(cosigned(federation, 2, [0, 1, 2], 4))
    (tmp_path / "new").write_bytes(cosigned(federation, 2, [0, 1, 2], 9))
    (tmp_path / "weak").write_bytes(signed(federation, 2, 9))
    (tmp_path / "other").write_bytes(cosigned(federation, 1, [0, 1, 2], 9))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = cli.main([str(one) for one in arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


def test_prove_and_check(
    federation: Federation, bundle: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = federation.charter.digest_hex
    out = files / "r5.tlog-proof"
    made = run(
        capsys, "prove", bundle, "--record", "2/0/5", "--checkpoint", files / "new",
        "--charter-digest", digest, "-o", out,
    )  # fmt: skip
    assert made == (0, "", "")
    check = ("check", out, "--charter", files / "charter.toml")
    status, text, err = run(capsys, *check, "--charter-digest", digest)
    first, *rest = text.splitlines()
    assert (status, err) == (0, "")
    assert first == 'VERIFIED: record 2/0/5 is in the log of "Hospital 2"'
    assert rest[0] == f"  id {federation.logs[2][5].id.hex()}"
    assert [line for line in rest if "cosigned" in line] == [
        f'  cosigned by {one} "Hospital {one}", 2023-11-14T22:13:20Z' for one in range(3)
    ]
    status, _, err = run(capsys, *check)
    assert (status, "--charter-digest" in err) == (3, True)


def test_a_witness_with_an_absurd_clock_does_not_crash_the_check(
    federation: Federation, bundle: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cosigned(federation, 2, [0, 1, 2])
    data = attach(
        data, [cosignature(federation, data, 3, time_s=2**63 - 1)], roster=federation.roster
    )
    (files / "p").write_bytes(prove_inclusion(bundle, "2/0/5", checkpoint=data).data)
    charter = ("--charter", files / "charter.toml")
    digest = ("--charter-digest", federation.charter.digest_hex)
    status, out, _ = run(capsys, "check", files / "p", *charter, *digest)
    assert (status, out.splitlines()[-1]) == (
        0, '  cosigned by 3 "Hospital 3", Unix time 9223372036854775807',
    )  # fmt: skip


def test_prove_to_standard_output(
    federation: Federation, bundle: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(
        capsys, "prove", bundle, "--consistency", files / "old", "--checkpoint", files / "new"
    )
    assert status == 0
    assert out.startswith("old 4\n")
    status, out, err = run(
        capsys, "prove", bundle, "--record", federation.logs[2][0].id.hex().upper()
    )
    assert status == 3
    assert err.startswith(
        "swarm-audit: evidence is missing: nobody signed the checkpoint: a proof in"
    )
    assert "index 0\n" in out


def test_refutations_have_status_1(
    bundle: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = files / "forged"
    forged.write_bytes((files / "new").read_bytes().replace(b"\n9\n", b"\n8\n"))
    record = ("prove", bundle, "--record", "2/0/5")
    for arguments, code in (
        ((*record, "--checkpoint", forged), "E_CHECKPOINT"),
        ((*record, "--charter-digest", "0" * 64), "E_NETWORK"),
        (("check", files / "new", "--charter", files / "charter.toml"), "E_CHECKPOINT"),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (1, "")
        assert err.startswith(f"REFUTED: {code}: ")


def test_a_charter_that_is_none_is_a_refutation_not_a_crash(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "bad.toml").write_text("version = 2\n")
    status, _, err = run(capsys, "policy", files / "bad.toml")
    assert (status, err.startswith("REFUTED: ")) == (1, True)


def test_what_cannot_be_done_has_status_2(
    bundle: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ("prove", bundle, "--record")
    (files / "huge").write_bytes(bytes(2 << 20))
    for arguments in (
        ("prove", bundle),
        ("prove", files, "--record", "2/0/5"),
        (*record, "2/0"),
        (*record, "2/0/99"),
        (*record, "7/0/0"),
        (*record, "0" * 64),
        (*record, "2/0/9", "--checkpoint", files / "new"),
        (*record, "2/0/5", "--checkpoint", files / "other"),
        (*record, "2/0/5", "--checkpoint", files / "none"),
        (*record, "2/0/5", "--checkpoint", files / "huge"),
        (*record, "2/0/5", "--consistency", files / "old"),
        (*record, "2/0/5", "-o", files / "no" / "where"),
        ("prove", bundle, "--consistency", files / "new", "--checkpoint", files / "old"),
        ("check", files / "none", "--charter", files / "charter.toml"),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (2, ""), arguments
        assert err.strip()


def test_a_log_that_is_not_in_the_bundle_is_the_operator_s(
    federation: Federation, tmp_path: Path
) -> None:
    partial = federation.bundle(tmp_path / "partial", [10, 10, 0, 10])
    with pytest.raises(ConfigError, match=r"has no 0002-0000\.log"):
        prove_consistency(partial, signed(federation, 2, 3))


def test_policy(federation: Federation, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "policy", files / "charter.toml") == (0, policy(federation.roster), "")


def test_help_says_what_the_exit_statuses_mean(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("prove", "check", "policy"):
        status, out, _ = run(capsys, command, "--help")
        assert (status, "exit status:" in out, "examples:" in out) == (0, True, True)
