"""Crash images: what a power cut could leave on the disk is built, opened and checked. See `__main__`."""
