"""The ledger: everything an auditor needs, nothing else (docs/ledger.md)."""
