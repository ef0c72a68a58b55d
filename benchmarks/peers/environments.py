"""A virtual environment for each peer, and what it needs around it: settings that say where its files go, a server.

An environment that is there already is used as it is. Nothing here talks to anything but the package index (pip) and
this machine: telemetry of the peers is switched off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.peers import REQUIREMENTS, SHOWN

ROOT = Path(__file__).resolve().parents[2]
SERVER_SECONDS = 120


def make(folder: Path, name: str) -> Path:
    """The interpreter of that environment, made with pip unless it is there; this project is installed each time."""
    home = folder / "environments" / name
    python = home / "bin" / "python"
    done = home / "made"
    if not done.exists():
        print(f"making the environment of {name} in {home}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        _install(python, REQUIREMENTS[name] or str(ROOT))
        done.touch()
    elif not REQUIREMENTS[name]:
        _install(python, "--force-reinstall", "--no-deps", str(ROOT))
    return python


def _install(python: Path, *what: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what], check=True)


def versions(python: Path, name: str) -> str:
    """Versions of a peer, of what writes for it, of Python and of SQLite."""
    code = (
        "import sqlite3, sys\n"
        "from importlib.metadata import version\n"
        f"print(', '.join(f'{{name}} {{version(name)}}' for name in {SHOWN[name]!r}),"
        " f'(Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version})')"
    )
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def surroundings(name: str, python: Path, folder: Path) -> Iterator[dict[str, str]]:
    """What the processes of a peer find in their environment, for as long as they run."""
    if name == "prefect":
        with _prefect_server(python, folder / "prefect") as settings:
            yield settings
    elif name == "dagster":
        home = folder / "dagster"
        home.mkdir(exist_ok=True)
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
        yield {"DAGSTER_HOME": str(home)}
    else:
        yield {}


@contextlib.contextmanager
def _prefect_server(python: Path, home: Path) -> Iterator[dict[str, str]]:
    """Its server on the loopback address, in a process that is not killed with the runs."""
    home.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    settings = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api,
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    with (home / "server.log").open("ab") as log:
        server = subprocess.Popen(
            [python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **settings},
        )
        try:
            _wait_for(f"{api}/health", server)
            yield settings
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the server of Prefect did not answer at {url} within {SERVER_SECONDS} s; see its server.log")
