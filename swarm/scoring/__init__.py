"""Scoring: what a member measures about the contributions of a round. Spec: docs/free-riders.md."""
