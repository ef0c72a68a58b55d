"""All benchmarks, one after the other, each in a process of its own: their JSON, one line each, and a table to read.

The lines go to standard output, the table to standard error. What is given on the command line goes to each of them
(`--rounds`, `--directory`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

BENCHMARKS = (
    *("sequential", "many_runs", "fan_out", "replay", "long_history"),
    *("start_up", "sleeping", "dispatch", "limits", "backpressure", "proof"),
    *("partitions", "asset_graph"),
    *("recovery", "opening", "signals", "log_size"),
)


def main(arguments: list[str]) -> None:
    for name in BENCHMARKS:
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json", *arguments]
        line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        print(line, flush=True)
        report = msgspec.json.decode(line)
        ratio, aim = report["ratio"], report["aim"] or {}
        wanted = ", ".join(f"aim {name.replace('_', ' ')} {value:g}" for name, value in aim.items()) or "no aim"
        numbers = f"{ratio['median']:8.3f}  ({ratio['min']:.3f} to {ratio['max']:.3f})"
        print(f"{name:12}{numbers}  {wanted}: {report['ratio_of']}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
