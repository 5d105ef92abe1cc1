"""The operator's commands: parse, call, say. Room: node."""
