"""Whole swarms on one machine: real processes or one simulated process."""
