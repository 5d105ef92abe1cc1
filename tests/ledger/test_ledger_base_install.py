"""An auditor with msgpack and PyNaCl and nothing else: every vector, every command."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from reputation_records import opened

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "tests" / "vectors"
# What `pip install swarm-node` brings, with what PyNaCl itself needs.
BASE = ("msgpack", "nacl", "cffi", "_cffi_backend", "pycparser")
# Nothing on the path but the standard library, the ledger and links to the packages of the base.
ALONE = """
import sys
sys.path[:] = [one for one in sys.path if "site-packages" not in one] + {paths!r}
"""
VERIFY = """
import json
from pathlib import Path
from ledger.cli import main
from ledger.verify import Brought, verify_bundles
for case in sorted(Path({cases!r}).iterdir()):
    meant = json.loads((case / "meant.json").read_text())
    more = {{kind: sorted(case.glob(kind + "-*")) for kind in ("pins", "tokens")}}
    report = verify_bundles(
        sorted(case.glob("bundle-*")), (case / "charter.toml").read_bytes(), meant["digest"],
        brought=Brought(**more),
    )
    findings = sorted([one.step, one.error.code] for one in report.findings)
    assert (report.verdict, findings) == (meant["verdict"], meant["findings"]), case
for arguments in {commands!r}:
    assert main(arguments) == 0, arguments
third = set(sys.modules) & {{"torch", "numpy", "trio", "libp2p", "duckdb", "typer", "blake3", "swarm", "node"}}
assert not third, third
print("DONE")
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A folder with the ledger and one with the base's packages, and no other way to any."""
    directory = tmp_path_factory.mktemp("base")
    (directory / "ledger").symlink_to(ROOT / "ledger")
    packages = directory / "packages"
    packages.mkdir()
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(installed).iterdir():
            if path.name.partition(".")[0].partition("-")[0] in BASE:
                link = packages / path.name
                if not link.exists():
                    link.symlink_to(path)
    return [str(directory), str(packages)]


def alone(base: list[str], code: str) -> subprocess.CompletedProcess[str]:
    # -I: no environment, no user's packages, not the present folder; -S: no site-packages.
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE.format(paths=base) + code],
        capture_output=True, text=True, check=False, timeout=300,
        env={"PATH": os.environ.get("PATH", "")},
    )  # fmt: skip


def write_case(row: dict[str, Any], case: Path) -> None:
    case.mkdir(parents=True)
    (case / "charter.toml").write_bytes(bytes.fromhex(row["charter"]))
    meant = {key: row[key] for key in ("verdict", "findings")} | {"digest": row["charter_digest"]}
    (case / "meant.json").write_text(json.dumps(meant))
    for number, files in enumerate(row["bundles"]):
        for name, data in files.items():
            path = case / f"bundle-{number}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes.fromhex(data))
    for kind in ("pins", "tokens"):
        for number, data in enumerate(row.get(kind, ())):
            (case / f"{kind}-{number}").write_bytes(bytes.fromhex(data))


def test_every_vector_and_command_needs_the_base_install_alone(
    base: list[str], tmp_path: Path
) -> None:
    for name in ("bundles_valid.json", "bundles_invalid.json"):
        for row in json.loads((VECTORS / name).read_text())["vectors"]:
            write_case(row, tmp_path / "cases" / row["name"])
    federation = opened(5)
    for round_ in (1, 2):
        federation.play_evaluated(round_)
    bundle = str(federation.bundle(tmp_path / "bundle"))
    trusted = ["--charter-digest", federation.charter.digest_hex]
    commands = [
        ["verify", bundle, *trusted, "--jobs", "2"],
        ["show", "1/0/1", bundle, *trusted],
        ["log", bundle],
        ["diff", bundle, bundle],
        ["reputation", bundle, *trusted],
        ["report", bundle, *trusted, "-o", str(tmp_path / "report.html")],
    ]
    code = VERIFY.format(cases=str(tmp_path / "cases"), commands=commands)
    done = alone(base, code)
    assert done.stdout.endswith("DONE\n"), done.stderr


def test_recompute_says_what_to_install(base: list[str], tmp_path: Path) -> None:
    done = alone(
        base,
        "from ledger.cli import main\n"
        f"sys.exit(main(['verify', {str(tmp_path)!r}, '--recompute', {str(tmp_path)!r}]))",
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'swarm-node[node]'" in done.stderr


def test_the_base_install_is_two_packages() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [one.partition(">")[0] for one in project["dependencies"]]
    assert names == ["msgpack", "pynacl"]
