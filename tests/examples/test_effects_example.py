"""The example of the effect contracts, run as a reader would: it kills its own processes."""

from __future__ import annotations

from pathlib import Path

from tests.examples.test_language_examples import run_example


def test_four_contracts_four_outcomes(tmp_path: Path) -> None:
    assert run_example("effects", folder=tmp_path).splitlines() == [
        *["killed"] * 4,
        "index sent by attempt 2",
        "letter: sent or not, a person must look",
        "payment found in the books",
        "booked by attempt 2: 80 in all",
        "index: 2 time(s)",
        "letter: 1 time(s)",
        "payment: 1 time(s)",
        "booking: 1 time(s)",
    ]
    assert list(tmp_path.iterdir()) == []
