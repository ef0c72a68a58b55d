"""The house as tables: which rooms there are, on which floor, and what each may touch. Edit here, not in the rules.

Every exception carries its reason. `rules.py` reports exceptions that are no longer needed, so these lists only shrink.
"""

from __future__ import annotations

from typing import Final

PACKAGES: Final = ("engine", "eventstore")
"""The two import packages. A third is never added."""

FACE: Final = "engine"
"""`engine/__init__.py`: what a user imports. It may import every floor up to the shell, and no room may import it
except from the floors above the shell."""

FLOORS: Final[dict[str, int]] = {
    "engine.errors": -1,
    "engine.core": 0,
    "eventstore": 0,
    "engine.workflows": 1,  # what workflow code may say
    "engine.tasks": 1,  # what task code may say
    "engine.executors": 2,
    "engine.storage": 2,
    "engine.runtime": 3,
    "engine.assets": 4,
    "engine.schedules": 4,
    "engine.audit": 4,
    "engine.moving": 4,
    "engine.testing": 4,
    "engine.cli": 5,
    "engine.console": 5,
    "engine.telemetry": 5,
}
"""Rooms and their floors. A room is a module or a package with all below it. Imports go down only."""

SHELL: Final = 3
"""The highest floor that may look inside the house; the ones above it use only what a user can import."""

JOINS: Final = "engine.runtime"
"""The only room that knows both what decides (`engine.core`) and what remembers (`eventstore`)."""

PUBLIC: Final = (
    "engine",
    "engine.errors",
    "eventstore",
    "engine.executors",
    "engine.executors.conformance",
    "engine.storage",
    "eventstore.conformance",
    "eventstore.digest",  # the documented form, for whoever checks a history
    "eventstore.arrivals",  # the check of what is moved, for whoever reads a file without a store
    "eventstore.memory",
    "eventstore.moving",  # the second port
    "eventstore.sqlite",
    "eventstore.urls",
    "engine.assets",
    "engine.schedules",
    "engine.audit",
    "engine.moving",
    "engine.testing",
)
"""Modules a user may import from, and with them the floors above the shell: only names in their `__all__`."""

PURE: Final = ("engine.core",)

IMPURE_MODULES: Final = frozenset(
    """
    time random secrets uuid threading _thread logging socket ssl select selectors os io pathlib shutil tempfile glob
    subprocess multiprocessing concurrent signal sqlite3 anyio aiosqlite sniffio tenacity urllib http queue platform
    locale getpass fcntl resource syslog ctypes atexit sched
    """.split()
)
"""What engine.core imports nothing of: I/O, clocks, chance, threads, processes, logging, and who does these."""

PURE_NAMES: Final[dict[str, str]] = {
    "random.Random": "a generator seeded from the history; calling it without a seed is reported",
    "threading.get_ident": "asks which thread this is, for call_soon_threadsafe; starts none and waits for none",
    "threading.local": "says which loop is the running one of this thread; starts none and waits for none",
    "uuid.UUID": "the value type only",
}
"""Names that engine.core may import from the modules above: `from module import name`, nothing else of them."""

IMPURE_CALLS: Final = frozenset({"open", "print", "input", "id", "breakpoint", "exec", "eval", "compile", "__import__"})
"""Builtins that engine.core does not call: effects, and answers that differ between processes."""

IMPURE_ASYNCIO: Final = frozenset(
    """
    run Runner to_thread new_event_loop get_event_loop set_event_loop set_event_loop_policy get_event_loop_policy
    create_subprocess_exec create_subprocess_shell open_connection open_unix_connection start_server start_unix_server
    run_coroutine_threadsafe SelectorEventLoop
    """.split()
)
"""Of asyncio, which engine.core may use: what would bring a second loop, threads, sockets or processes."""

CLOCK: Final = "eventstore.clock"
"""The only module that reads a clock."""

FORBIDDEN_MODULES: Final = frozenset({"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"})
"""No pickle, anywhere by default. joblib, which pickles, has one room (below), that is entered only when it is named."""

RUNS_TEXT: Final = frozenset({"eval", "exec", "compile", "__import__"})
"""Builtins that make code of text. Nobody calls them."""

RUNS_TEXT_PATHS: Final = frozenset(
    """
    yaml.load yaml.unsafe_load yaml.full_load os.system os.popen subprocess.getoutput subprocess.getstatusoutput
    code.interact codeop.compile_command runpy.run_path runpy.run_module types.CodeType types.FunctionType
    """.split()
)
"""Functions of libraries that do."""

DEPENDENCIES: Final[dict[str, tuple[str, ...]]] = {
    # core
    "msgspec": PACKAGES,
    "anyio": ("eventstore", "engine.executors", "engine.storage", "engine.runtime"),
    "aiosqlite": ("eventstore.sqlite",),
    "tenacity": ("engine.tasks", "engine.runtime", "engine.assets"),  # there as any author of tasks uses it
    "typing_extensions": ("engine.workflows",),  # for type checkers only, which know it; never at run time
    # extras: one leaf each
    "typer": ("engine.cli",),
    "rich": ("engine.cli",),
    "asyncpg": ("eventstore.postgres",),
    "pyarrow": ("engine.storage.arrow", "engine.assets.row_diff", "engine.assets.table_checks"),
    "polars": ("engine.storage.arrow.with_polars", "engine.assets.with_pandera"),
    "pandas": ("engine.storage.arrow.with_pandas", "engine.assets.with_pandera"),
    "pandera": ("engine.assets.with_pandera",),
    "pointblank": ("engine.assets.with_pointblank",),
    "duckdb": ("engine.storage.arrow.with_duckdb",),
    "fsspec": ("engine.storage.remote",),
    "joblib": (
        "engine.storage.with_joblib",
    ),  # models have no other form; only for who writes and reads format="joblib"
    "cronsim": ("engine.schedules",),
    "cryptography": ("engine.audit",),
    "litestar": ("engine.console",),
    "uvicorn": ("engine.console",),
    "jinja2": ("engine.console",),
    "dask": ("engine.executors",),
    "distributed": ("engine.executors",),
    "ray": ("engine.executors",),
    "opentelemetry": ("engine.telemetry",),
    "prometheus_client": ("engine.telemetry",),
    # for the suites that are shipped; whoever imports them has a test runner
    "pytest": ("eventstore.conformance", "engine.testing.pytest_plugin"),
    "hypothesis": ("eventstore.conformance",),
    # standard library, but only one room speaks it
    "sqlite3": ("eventstore.sqlite",),
}
"""Third-party packages and where each may be imported. One that is not here is imported nowhere."""

CORE_DEPENDENCIES: Final = frozenset({"anyio", "aiosqlite", "msgspec", "tenacity"})
"""What `import engine, eventstore` may load of other people's code. More needs a page in docs/decisions."""

DYNAMIC_IMPORTS: Final[dict[str, str]] = {
    "engine.cli": "loads the file or module that the user names as target",
    "engine.executors": "a worker process imports the module of the task that its engine names",
    "engine.assets.elsewhere": "a worker process imports the module in which the definitions of its assets stand",
}
"""Rooms that may import by a computed name."""

MODULE_LINES: Final = 400
MODULE_LINES_STOP: Final = 600
FUNCTION_LINES: Final = 70
CLASS_METHODS: Final = 25

LONG_MODULES: Final[dict[str, str]] = {
    "engine.core.events": "every event of a history stands in one file: what is on disk is to be seen in one place",
}
"""Modules between the two limits: name -> why they are not split."""

MANY_METHODS: Final[dict[str, str]] = {
    "engine.core.loop:DeterministicLoop": "asyncio.AbstractEventLoop sets the number: libraries call what they call",
    "engine.core.ordered:OrderedSet": "stands in for the builtin set, whose whole surface it must answer for",
}
"""Classes over the limit: "module:Class" -> why."""

MODULE_STATE: Final[dict[str, str]] = {
    "eventstore.sqlite.guard:_descriptors": "fork is process-wide: the child closes every lock file, whoever opened it",
}
"""Module-level mutable state: "module:name" -> why it is not an object somebody holds."""

NOT_A_NAME: Final = frozenset({"utils", "util", "helpers", "misc", "common", "stuff"})
"""File names that say nothing."""

WRONG_WORDS: Final[dict[str, str]] = {
    "manager": "say what it does",
    "managers": "say what it does",
    "orchestrator": "workflow",
    "activity": "task",
    "activities": "task",
    "fiber": "branch",
    "journal": "history",
    "subflow": "child run",
    "activation": "turn",
    "aggregate": "stream",
    "topic": "stream",
}
"""Words of other houses, as parts of the names we define -> ours (docs/glossary.md)."""
