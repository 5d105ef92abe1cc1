"""Write store_version_1.db: a store as version 1 of the schema leaves it. Run once for each version.

Never run it again for version 1: the file must stay what the program of that time wrote.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ledger_factory import Federation

from ledger.store import Store

MEMBERS = 2
ROUNDS = 1


def main() -> None:
    path = Path(__file__).parent / "store_version_1.db"
    federation = Federation(MEMBERS)
    federation.play(ROUNDS)
    with Store.open(path) as store:
        store.append(federation.records(), state={"phase": b"kept"})
    Path(f"{path}.lock").unlink()


if __name__ == "__main__":
    main()
