"""The parts of the charter's subgroups, by number and by name. Room: ledger. Spec: docs/ledger.md §5.3."""

from __future__ import annotations

from .charter import Schema, Subgroup


def part_count(schema: Schema, subgroup: Subgroup) -> int:
    """Bands between and beyond a number's edges, or a column's categories."""
    return len(subgroup.edges) + 1 if subgroup.edges else len(_categories(schema, subgroup))


def part_name(schema: Schema, subgroup: int, part: int) -> str:
    """Return what one part is called; numbers where the charter has no such subgroup or part."""
    if subgroup >= len(schema.subgroups):
        return f"subgroup {subgroup}, part {part}"
    group = schema.subgroups[subgroup]
    if part >= part_count(schema, group):
        return f"{group.column}, part {part}"
    if not group.edges:
        return f"{group.column} = {_categories(schema, group)[part]}"
    if part == 0:
        return f"{group.column} < {group.edges[0]:g}"
    if part == len(group.edges):
        return f"{group.column} ≥ {group.edges[-1]:g}"
    return f"{group.edges[part - 1]:g} ≤ {group.column} < {group.edges[part]:g}"


def _categories(schema: Schema, subgroup: Subgroup) -> tuple[str, ...]:
    return next(one.categories for one in schema.features if one.name == subgroup.column)
