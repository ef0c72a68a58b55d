"""What workflow code must not use, and what to write instead: tables, and the one function that reads them.

Things are named by dotted path, as `naming` finds them: ``time.time``, ``datetime.datetime.now``, and with ``()`` for
what a call made: ``pathlib.Path().read_text`` is a method of what ``Path(...)`` returned.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PATHS", "instead_of"]

_NOW: Final = "durable.now()"
_ELAPSED: Final = "durable.now(), or asyncio.get_running_loop().time() for spans: both stand in the history"
_SLEEP: Final = "await asyncio.sleep(...): a durable timer"
_CHANCE: Final = "durable.random(), which is seeded by the run"
_UUID: Final = "durable.uuid4()"
_SECRET: Final = "a @task that makes it"  # noqa: S105 - it is none
_SETTING: Final = "an argument of the workflow, or a @task that asks"
_EFFECT: Final = "a @task that does it, and await that"
_THREAD: Final = "branches (asyncio.create_task, TaskGroup), or a plain `def` with @task: it runs in a thread"
_KEY: Final = "a key made from the value itself (an id, a name, hashlib): this one differs between processes"

_EXACT: Final[dict[str, str]] = {
    **dict.fromkeys(("time.time", "time.time_ns"), _NOW),
    **dict.fromkeys(("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"), _NOW),
    "datetime.date.today": "durable.now().date()",
    **dict.fromkeys(
        (
            f"time.{clock}{unit}"
            for clock in ("monotonic", "perf_counter", "process_time", "thread_time")
            for unit in ("", "_ns")
        ),
        _ELAPSED,
    ),
    **dict.fromkeys(("time.clock_gettime", "time.clock_gettime_ns"), _NOW),
    "time.sleep": _SLEEP,
    **dict.fromkeys((f"uuid.uuid{kind}" for kind in (1, 4, 6, 7, 8)), _UUID),
    "uuid.getnode": _SETTING,
    **dict.fromkeys(("builtins.hash", "builtins.id"), _KEY),
    **dict.fromkeys(("io.open", "io.open_code", "builtins.input"), _EFFECT),
    "os.urandom": _SECRET,
    **dict.fromkeys(
        ("asyncio.to_thread", "asyncio.run_coroutine_threadsafe", "asyncio.run", "asyncio.Runner"),
        _THREAD,
    ),
    **dict.fromkeys(
        (
            f"asyncio.{name}"
            for name in (
                "create_subprocess_exec",
                "create_subprocess_shell",
                "open_connection",
                "open_unix_connection",
                "start_server",
                "start_unix_server",
            )
        ),
        _EFFECT,
    ),
    **dict.fromkeys(
        (
            f"anyio.{name}"
            for name in (
                "Path",
                "TemporaryDirectory",
                "TemporaryFile",
                "NamedTemporaryFile",
                "SpooledTemporaryFile",
                "connect_tcp",
                "connect_unix",
                "create_tcp_listener",
                "create_unix_listener",
                "create_udp_socket",
                "getaddrinfo",
                "open_file",
                "open_process",
                "open_signal_receiver",
                "run_process",
                "wrap_file",
            )
        ),
        _EFFECT,
    ),
}

_WITHOUT_ARGUMENT: Final[dict[str, tuple[int, str]]] = {
    "time.localtime": (1, _NOW),
    "time.gmtime": (1, _NOW),
    "time.ctime": (1, _NOW),
    "time.asctime": (1, _NOW),
    "time.strftime": (2, _NOW),
    "random.Random": (1, _CHANCE),
}
"""What reads a clock, or asks chance, only when it is given fewer arguments than this."""

_PREFIXES: Final[dict[str, str]] = {
    "random": _CHANCE,
    "secrets": _SECRET,
    "os": _SETTING,
    "platform": _SETTING,
    "getpass": _SETTING,
    "shutil": _EFFECT,
    "tempfile": _EFFECT,
    "glob": _EFFECT,
    "fcntl": _EFFECT,
    "signal": _EFFECT,
    "socket": _EFFECT,
    "ssl": _EFFECT,
    "select": _EFFECT,
    "selectors": _EFFECT,
    "subprocess": _EFFECT,
    "sqlite3": _EFFECT,
    "aiosqlite": _EFFECT,
    "asyncpg": _EFFECT,
    "urllib.request": _EFFECT,
    "http.client": _EFFECT,
    "http.server": _EFFECT,
    "urllib3": _EFFECT,
    "requests": _EFFECT,
    "httpx": _EFFECT,
    "aiohttp": _EFFECT,
    "smtplib": _EFFECT,
    "ftplib": _EFFECT,
    "threading": _THREAD,
    "multiprocessing": _THREAD,
    "concurrent.futures": _THREAD,
    "anyio.to_thread": _THREAD,
    "anyio.from_thread": _THREAD,
    "anyio.to_process": _THREAD,
    "anyio.to_interpreter": _THREAD,
}
"""Modules of which nothing is to be used."""

_FINE: Final = frozenset(
    {"os.PathLike", "os.fspath", "os.fsencode", "os.fsdecode", "os.strerror", "random.Random"}
    | {"glob.escape", "glob.translate", "signal.Signals", "subprocess.list2cmdline"}
    | {f"os.path.{name}" for name in ("join", "split", "splitext", "splitdrive", "splitroot", "basename", "dirname")}
    | {f"os.path.{name}" for name in ("normpath", "normcase", "isabs", "commonpath", "commonprefix")}
)
"""Exceptions to that: they compute."""

PATHS: Final = "pathlib.Path()"
_PURE_METHODS: Final = frozenset(
    {"joinpath", "with_name", "with_stem", "with_suffix", "with_segments", "relative_to", "is_relative_to", "match"}
    | {"full_match", "as_posix", "as_uri", "is_absolute", "is_reserved", "from_uri"}
    | {"parent", "parents", "name", "names", "stem", "suffix", "suffixes", "parts", "drive", "root", "anchor", "parser"}
)
"""What a path can say of itself; whatever else it does, it asks the disk."""


def instead_of(path: str, arguments: int | None, *, acts: bool = True) -> str | None:
    """What to write instead of `path`; None when it may be used.

    `arguments`: how many it is called with; None where it is only named, and so handed on to be called by others.
    `acts`: whether what is only named is a function, or an object with a life of its own; a class or a plain value
    does nothing until it is called.
    """
    if path in _EXACT:
        return _EXACT[path]
    if path in _WITHOUT_ARGUMENT:
        needed, instead = _WITHOUT_ARGUMENT[path]
        return instead if arguments is not None and arguments < needed else None
    if path.startswith(("pathlib.Path.", f"{PATHS}.")):
        method = path.removesuffix("()").rpartition(".")[2]
        return _EFFECT if path.count(".") == 2 and method not in _PURE_METHODS else None
    if path.endswith(".run_in_executor"):
        return _THREAD
    if arguments is None and not acts:
        return None
    module = path.replace("()", "")
    while "." in module:
        module = module.rpartition(".")[0]
        if module in _PREFIXES:
            fine = path in _FINE or path.startswith(tuple(f"{each}{next_}" for each in _FINE for next_ in (".", "()")))
            return None if fine else _PREFIXES[module]
    return None
