"""Rounds on several processes at once, which end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from tests.power.engine_check import run_all
from tests.power.rounds import Report

ROUND_IMAGES = 1_500
FAULTS_MAX = 20
"""After so many it ends: they are seldom of different causes."""


def end_with_the_parent() -> None:
    """In a worker: it does not outlive who started it, and leaves no folder behind. PR_SET_PDEATHSIG is Linux's, as strace."""
    signal.signal(signal.SIGTERM, _end)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def one_round(seed: int, images: int, keep: Path) -> tuple[Report, float]:
    """In a worker."""
    try:
        return run_all(seed, images, keep)
    except SystemExit as ending:  # its folder is gone; the pool would take this for the outcome, and wait for more work
        os._exit(int(ending.code or 0))


def cut(images: int, jobs: int, seed: int, keep: Path) -> Report:
    """Rounds until there are so many images."""
    total = Report()
    asked = 0
    size = min(ROUND_IMAGES, -(-images // jobs))
    began = time.monotonic()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_the_parent) as pool:
        waiting: set[Future[tuple[Report, float]]] = set()
        while True:
            under_way = len(waiting) * size
            while len(waiting) < jobs and total.images + under_way < images and len(total.faults) < FAULTS_MAX:
                waiting.add(pool.submit(one_round, seed + asked, size, keep))
                asked, under_way = asked + 1, under_way + size
            if not waiting:
                return total
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for each in done:
                total += each.result()[0]
            rate = total.images / (time.monotonic() - began)
            print(f"{total.images:,} images, {len(total.faults)} wrong, {rate:.0f}/s", file=sys.stderr, flush=True)
