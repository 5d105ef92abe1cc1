"""Faults of real nodes: processes killed and paused, cables cut, links slowed, disks filled.

Room: scenarios. Every hospital is a process of its own, where root allows in a network namespace of its
own; what the others lost is read from their ledgers.
"""
