"""What a test is told when it cannot go on as it was written."""

from __future__ import annotations

__all__ = ["NotRepeatable", "Stuck", "UnfakedTask"]


class Stuck(AssertionError):
    """A run has not ended, nothing is under way, and no moment is left that anybody waits for."""


class UnfakedTask(AssertionError):
    """A task was begun for which there is no fake, and the lab was told to let none of them act (`only_fakes`); or it
    is transactional, and a lab has no transaction to give it.
    """


class NotRepeatable(AssertionError):
    """Played twice without any disturbance a run came out differently: there is nothing to compare others with."""
