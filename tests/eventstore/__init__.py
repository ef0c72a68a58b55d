"""Tests of the store port, the stores, and the suite that is shipped."""
