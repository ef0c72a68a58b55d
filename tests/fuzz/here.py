"""``python -m tests.fuzz.here TARGET FOLDER SECONDS``: one target, in this process, until time is up or something broke.

Started by `tests.fuzz`. Our modules, and no others, are watched for what of them is reached.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["engine", "eventstore"]):
    from tests.fuzz.check import problem

MEMORY_MEGABYTES = 2_048
INPUT_BYTES_MAX = 16_384


def main(name: str, folder: str, seconds: str) -> None:
    """Does not return."""

    def one(data: bytes) -> None:
        wrong = problem(name, data)
        if wrong is not None:
            raise AssertionError(wrong)

    options = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=20"]
    options += [f"-rss_limit_mb={MEMORY_MEGABYTES}", f"-artifact_prefix={folder}/crash/"]
    atheris.Setup([name, *options, f"{folder}/seeds"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
