"""A ledger at a site without running it: every member's OPEN, as sync would have brought them."""

import time
from collections.abc import Sequence
from pathlib import Path

from site_factory import Site

from ledger.chain import compose
from ledger.charter import load_charter
from ledger.keys import Signer, derive
from ledger.record import NO_ID, Kind, Open, sign_record
from ledger.roster import Roster
from ledger.store import Store


def write_log(site: Site, directories: Sequence[Path]) -> None:
    charter = load_charter(site.charter.read_bytes())
    roster = Roster.from_charter(charter)
    records = []
    for author, directory in enumerate(directories):
        seed = (directory / "keys" / "node.seed").read_bytes()
        signer = Signer(derive(seed, "ledger"))
        body = Open(
            public_key=signer.public_key,
            previous_head=NO_ID,
            software_digest=NO_ID,
            charter_digest=charter.net,
        )
        record = compose(
            None, roster=roster, author=author, epoch=0, kind=Kind.OPEN, round=0,
            time_ms=time.time_ns() // 1_000_000, acks=(), body=body,
        )  # fmt: skip
        records.append(sign_record(record, signer))
    with Store.open(site.directory / "ledger.db") as store:
        store.append(records)
