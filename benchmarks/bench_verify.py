"""How long a full audit takes against the bare PyNaCl loop over the same signatures.

20 members, rounds of CONTRIBUTION (with acks of every other member), AGGREGATION and METRICS.
Both are timed in turns in the same run, each in processor time of its best turn.
Exit status 1 if the ratio is above the limit.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from nacl.signing import VerifyKey

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "ledger"))

from ledger_factory import Federation

from ledger.record import DOMAIN
from ledger.verify import verify_bundles

LIMIT = 1.3
AUTHORS = 20


def main() -> int:
    """Measure, print one line, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    federation = Federation(AUTHORS)
    federation.play(max(1, options.records // AUTHORS // 3))
    records = federation.records()
    keys = [VerifyKey(signer.public_key) for signer in federation.signers]
    signatures = [
        (
            keys[one.value.author].verify,
            DOMAIN + one.signed.record_bytes,
            one.signed.signature,
        )
        for one in records
    ]
    with tempfile.TemporaryDirectory() as directory:
        bundle = federation.bundle(Path(directory) / "bundle")
        bare_s, full_s = [], []
        for _ in range(options.turns):
            start_s = time.process_time()
            for verify, message, signature in signatures:
                verify(message, signature)
            bare_s.append(time.process_time() - start_s)
            start_s = time.process_time()
            report = verify_bundles(
                [bundle], federation.charter_bytes, federation.charter.digest_hex
            )
            full_s.append(time.process_time() - start_s)
            assert report.exit_status == 0, report.to_text()
    ratio = min(full_s) / min(bare_s)
    print(
        f"verify: {len(records)} records of {AUTHORS} authors, full {min(full_s):.2f} s, bare "
        f"PyNaCl {min(bare_s):.2f} s, ratio {ratio:.2f} (limit {LIMIT})"
    )
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
