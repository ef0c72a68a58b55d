"""The parts of `examples/flights.py` that know nothing of workflows: plain functions on plain values."""
