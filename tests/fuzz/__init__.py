"""Hostile bytes for everything that decodes bytes from outside; see `tests/fuzz/targets.py`."""
