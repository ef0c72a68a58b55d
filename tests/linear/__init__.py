"""Whether what several processes saw of one store can have happened in one order; see `tests/linear/__main__.py`."""
