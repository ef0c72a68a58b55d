"""What is compared, and what is said of it: requirements, sizes, when what is fsynced, and what is not claimed.

Everything that is a judgement and not a measurement stands here, so that it can be read, and argued with, in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROGRAMS = ("different", "same_named", "first_completed", "timeout")
WORKLOADS = ("steps", "many", "fan_out", "resume")
WORKLOAD_WORDS = {
    "steps": ("steps in sequence in one run", "steps/s"),
    "many": ("many runs of five steps", "runs/s"),
    "fan_out": ("fan-out in one run", "tasks/s"),
    "resume": ("resume after kill -9, to the first new step", "s"),
}
PROGRAM_WORDS = {
    "different": "gather of two branches, three different tasks each",
    "same_named": "gather of two branches that call the same task three times each",
    "first_completed": "two tasks race, FIRST_COMPLETED, two tasks follow the winner",
    "timeout": "a task under a timeout of 0.1 s that it may or may not reach, two tasks follow",
}
STEPS_OF_MANY = 5


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One column of the tables."""

    name: str
    title: str
    environment: str  # whose virtual environment
    program: str  # a file in programs/
    sizes: dict[str, int]  # of each workload that is measured: steps, runs, tasks, steps of the run that is stopped
    durability: str
    options: dict[str, object] = field(default_factory=dict)  # arguments of its workloads
    at_once: int | None = None  # runs at once in `many`; None: all
    crash_programs: dict[str, str] = field(default_factory=dict)  # program -> its name in the file
    not_claimed: dict[str, str] = field(default_factory=dict)  # program -> why


REQUIREMENTS = {
    "holdfast": "",  # this project, from its own folder
    "dbos": "dbos>=3.4,<4",
    "prefect": "prefect>=3.9,<4",
    "dagster": "dagster>=1.13,<2",
}
SHOWN = {
    "holdfast": ("holdfast", "msgspec"),
    "dbos": ("dbos", "sqlalchemy"),
    "prefect": ("prefect", "sqlalchemy", "aiosqlite"),
    "dagster": ("dagster", "sqlalchemy"),
}

_AS_NAMED = {name: name for name in PROGRAMS}
_RESTART = (
    "its documentation says that the results of completed tasks are used again, not that what the flow decided is:"
    " which task was first, or in time, is decided again when the run is retried"
)
_NO_SUCH_THING = "a job is a graph that is known before it runs; no op waits for whichever of others is first"
_NO_TIMEOUT = "an op has no timeout (dagster/max_runtime ends the whole run)"
_BRANCHES = (
    "steps begun at once must begin in a fixed order, its documentation says, and sequences at once are child workflows"
)
_RACE = "DBOS.asyncio_wait is its durable form of asyncio.wait and of a timeout: see the other column"

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="holdfast",
            title="Holdfast",
            environment="holdfast",
            program="on_holdfast.py",
            sizes={"steps": 200, "many": 200, "fan_out": 500, "resume": 100},
            durability="SQLite, WAL, synchronous=EXTRA: fsynced at every commit (its default)",
            crash_programs=_AS_NAMED,
        ),
        Peer(
            name="dbos",
            title="DBOS",
            environment="dbos",
            program="on_dbos.py",
            sizes={"steps": 200, "many": 200, "fan_out": 500, "resume": 100},
            durability="SQLite, rollback journal, synchronous=FULL: fsynced at every commit (its default)",
            crash_programs=_AS_NAMED,
        ),
        Peer(
            name="dbos_wal",
            title="DBOS, WAL",
            environment="dbos",
            program="on_dbos.py",
            sizes={"steps": 200, "many": 200, "fan_out": 500, "resume": 100},
            options={"wal": True},
            durability=(
                "the same, the file told beforehand to keep a WAL: fsynced at every commit (a setting of SQLite that"
                " its documentation does not name)"
            ),
        ),
        Peer(
            name="dbos_plain",
            title="DBOS, plain asyncio",
            environment="dbos",
            program="on_dbos.py",
            sizes={},
            durability="as DBOS",
            crash_programs={name: f"plain_{name}" for name in PROGRAMS},
            not_claimed={"different": _BRANCHES, "same_named": _BRANCHES, "first_completed": _RACE, "timeout": _RACE},
        ),
        Peer(
            name="prefect",
            title="Prefect",
            environment="prefect",
            program="on_prefect.py",
            sizes={"steps": 200, "many": 20, "fan_out": 200, "resume": 100},
            at_once=2,
            durability=(
                "a server in a process of its own, which outlives the kills, with SQLite, WAL, synchronous=NORMAL:"
                " fsynced at checkpoints, not at commits (its default); results are files, not fsynced; what happened"
                " to a task reaches the server as an event, which the flow does not wait for"
            ),
            crash_programs=_AS_NAMED,
            not_claimed={"first_completed": _RESTART, "timeout": _RESTART},
        ),
        Peer(
            name="dagster",
            title="Dagster",
            environment="dagster",
            program="on_dagster.py",
            sizes={"steps": 100, "many": 10, "fan_out": 100, "resume": 100},
            durability=(
                "SQLite below DAGSTER_HOME, WAL, synchronous=FULL: fsynced at every commit (its default); outputs are"
                " pickle files, not fsynced; the in-process executor, one op after the other"
            ),
            crash_programs={"different": "different", "same_named": "same_named"},
            not_claimed={"first_completed": _NO_SUCH_THING, "timeout": _NO_TIMEOUT},
        ),
    )
}
