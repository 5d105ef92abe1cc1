"""The protocol as sans-IO machines: no tensor, no socket, no clock (docs/wire.md)."""
