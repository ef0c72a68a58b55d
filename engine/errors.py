"""Everything the engine raises on purpose, in one tree under `HoldfastError`.

A message names what was wrong, where, and what to do. `Evicted` alone is outside the tree: it is a `BaseException`,
because no user code may catch it by accident. The store's own errors are `eventstore.errors`.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ArgumentsError",
    "AssetDefinitionError",
    "AssetError",
    "AssetNotFound",
    "AuditError",
    "DamagedExport",
    "DefinitionError",
    "DeterminismError",
    "DoesNotVerify",
    "EngineClosed",
    "EngineFailed",
    "Evicted",
    "ExportError",
    "ForbiddenInWorkflow",
    "HeartbeatTimeout",
    "HistoryError",
    "HoldfastError",
    "KeepingRefused",
    "MaterializationFailed",
    "NotPublished",
    "NotRecordable",
    "PartitionError",
    "PartitionMismatch",
    "PayloadTooLarge",
    "QueryFailed",
    "RepairRefused",
    "RequestFailedError",
    "RequestRefused",
    "ResultError",
    "RunCancelledError",
    "RunConflict",
    "RunDeadlineExceeded",
    "RunEnded",
    "RunFailedError",
    "RunNotFound",
    "RunPrunedError",
    "RunSuspendedError",
    "RunTerminatedError",
    "SingletonHeld",
    "StepLimitExceeded",
    "StorageDamaged",
    "StorageError",
    "StorageMissing",
    "StorageRefused",
    "StorageUnavailable",
    "TaskError",
    "TaskInterrupted",
    "TaskTimeout",
    "TokenError",
    "UnknownWorkflow",
    "WorkerProcessDied",
    "WorkflowEnded",
]


class HoldfastError(Exception):
    """Base of everything that the engine raises on purpose."""


class DefinitionError(HoldfastError, TypeError):
    """A `@task` or `@workflow` cannot be what it says: no function, a type that cannot be recorded, a bad option."""


class DeterminismError(DefinitionError):
    """Workflow code would not do the same at a replay. `findings`: where, what, and what to write instead."""

    def __init__(self, message: str, findings: tuple[Any, ...] = ()) -> None:
        self.findings = findings
        super().__init__(message)


class AssetError(HoldfastError, ValueError):
    """Something about assets that cannot be so: a selection, an environment, a configuration, a value of an asset."""


class AssetDefinitionError(AssetError, DefinitionError):
    """An asset, a check or a `Definitions` cannot be what it says; the message names file and line."""


class AssetNotFound(AssetError, LookupError):
    """There is no asset of this key, or none of its versions is what was asked for."""


class MaterializationFailed(AssetError, RuntimeError):
    """Not all that was to be materialized was: the message names what failed, and what was skipped for that."""


class PartitionMismatch(DefinitionError):
    """Two definitions of partitions do not go together: no mapping between them is meant by itself, or they differ."""


class PartitionError(HoldfastError, ValueError):
    """A partition key, or the text of a key set, names what is not there, or cannot be a key at all."""


class ArgumentsError(HoldfastError, TypeError):
    """Arguments do not fit the annotated signature."""


class NotRecordable(HoldfastError, TypeError):
    """A value cannot be written as typed JSON, or would not come back as what it was."""


class PayloadTooLarge(HoldfastError, ValueError):
    """A value is over the inline limit: write it somewhere and hand on its path."""


class ForbiddenInWorkflow(HoldfastError, NotImplementedError):
    """Workflow code asked its loop for I/O, a thread or a process. That belongs into a `@task`."""


class WorkflowEnded(HoldfastError, RuntimeError):
    """A durable call after the workflow function has returned."""


class StepLimitExceeded(HoldfastError, RuntimeError):
    """One turn ran more callbacks than a turn may: the workflow spins without waiting for anything."""


class TaskInterrupted(HoldfastError, RuntimeError):
    """An attempt began, its worker was gone before it had ended, and the task's effect contract lets nobody try again.

    Whether the effect happened is not known. Of a task that reconciles: the outside could not be asked either.
    """


class TaskTimeout(HoldfastError, TimeoutError):
    """An attempt ran longer than its `timeout`, or the task longer than its `deadline`."""


class HeartbeatTimeout(HoldfastError, TimeoutError):
    """An attempt said nothing (`Attempt.heartbeat`) for its task's `heartbeat_timeout`."""


class WorkerProcessDied(HoldfastError, RuntimeError):
    """The process that an attempt ran in has died; the message names the signal or the exit code."""


class TaskError(HoldfastError):
    """A task failed finally with an exception that does not come back as itself.

    `type` is its qualified name, `message` its text, `traceback` what was recorded; causes are chained by `__cause__`.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:  # noqa: A002 - the word for it
        self.type = type
        self.message = message
        self.traceback = traceback
        super().__init__(f"{type}: {message}" if message else type)


class HistoryError(HoldfastError):
    """A history cannot be read as what it should be (unknown event, unknown turn rule, not the shape of a run)."""


class AuditError(HoldfastError, ValueError):
    """A key, a seal or a proof is not what it should be, or what is asked of the log cannot be proven or sealed."""


class DoesNotVerify(AuditError):
    """The log is not what was sealed, or a seal or a proof is not what was signed. Nothing was changed by looking."""


class StorageError(HoldfastError):
    """Base of what a storage of values raises (`engine.storage`). `key` names the object, if it is about one."""

    def __init__(self, message: str, *, key: str = "") -> None:
        self.key = key
        super().__init__(message)


class StorageMissing(StorageError, LookupError):
    """The storage holds no object of that key: it was swept, or this is another storage than the one written to."""


class StorageDamaged(StorageError):
    """An object is not what was written: its bytes do not have the digest that names it, or it is no plain file."""


class StorageRefused(StorageError, ValueError):
    """A value, a type, a key or a size that the storage does not take. The message says which, and what it takes."""


class StorageUnavailable(StorageError):
    """The storage cannot be reached, read or written now: no space, no permission, no connection, an I/O error."""


class ExportError(HoldfastError, ValueError):
    """A file to move runs in cannot be written as asked, or is none that this version reads."""


class DamagedExport(ExportError):
    """A file that runs were moved in is not as it was written: cut off, or changed. Nothing of it was taken in."""


class EngineClosed(HoldfastError, RuntimeError):
    """The engine is not open (yet, or any more)."""


class EngineFailed(HoldfastError, RuntimeError):
    """The engine stopped taking work because its store failed; `__cause__` says why. Runs stay as recorded."""


class UnknownWorkflow(HoldfastError, LookupError):
    """The engine was not given that workflow."""


class RunNotFound(HoldfastError, LookupError):
    """No run of that id."""


class RunEnded(HoldfastError, RuntimeError):
    """The run has ended: it takes no more signals, requests or completions, nor a cancel or terminate by a workflow."""


class RunDeadlineExceeded(HoldfastError, TimeoutError):
    """The run was not done by its deadline, or by the one that it inherited from its parent."""


class RequestRefused(HoldfastError, ValueError):
    """A request was refused before it was recorded: by its validator (`__cause__`), or since its argument does not fit.

    `request_id` names it; the same id again is refused again.
    """

    def __init__(self, request_id: str, message: str) -> None:
        self.request_id = request_id
        super().__init__(message)


class RequestFailedError(HoldfastError):
    """A request was accepted, and failed: `__cause__` is the exception as recorded. `request_id` names it."""

    def __init__(self, request_id: str, message: str) -> None:
        self.request_id = request_id
        super().__init__(message)


class QueryFailed(HoldfastError):
    """A query has no answer: the workflow provides none now, or what it provides raised (`__cause__`)."""


class NotPublished(HoldfastError, LookupError):
    """A state has no value yet: the run has published none, and the `State` has no initial one."""


class TokenError(HoldfastError, ValueError):
    """A completion token that belongs to no task of a run in this store, or was altered."""


class RunConflict(HoldfastError, ValueError):
    """The id belongs to a run of another workflow, or with other arguments."""


class SingletonHeld(HoldfastError, ValueError):
    """Another run of the workflow has the key, has not ended, and was not to be disturbed: nothing was started.

    `run_id` is that run, `key` the key.
    """

    def __init__(self, run_id: str, *, workflow: str, key: str) -> None:
        self.run_id = run_id
        self.key = key
        super().__init__(
            f"run {run_id!r} of workflow {workflow!r} has the singleton key {key!r} and has not ended: wait for it"
            f" (engine.run({run_id!r})), or say on_conflict= 'attach', 'queue' or 'replace'"
        )


class RepairRefused(HoldfastError, ValueError):
    """A run cannot be reopened, forked or run again as asked. The message says why, and what can be done instead."""


class KeepingRefused(HoldfastError, ValueError):
    """What a run has recorded is still needed, so it was neither pruned nor made to forget; or the store cannot."""


class ResultError(HoldfastError):
    """Base of what `result()` raises when a run has no result to give. `run_id` names the run."""

    def __init__(self, run_id: str, message: str) -> None:
        self.run_id = run_id
        super().__init__(message)


class RunFailedError(ResultError):
    """The workflow raised. `__cause__` is the exception as recorded; `type`, `message` and `traceback` describe it."""

    def __init__(self, run_id: str, *, type: str, message: str, traceback: str) -> None:  # noqa: A002
        self.type = type
        self.message = message
        self.traceback = traceback
        super().__init__(
            run_id, f"run {run_id!r} failed with {type}: {message}" if message else f"run {run_id!r} failed with {type}"
        )


class RunCancelledError(ResultError):
    """The run was cancelled."""


class RunTerminatedError(ResultError):
    """The run was ended from outside, without its code."""


class RunSuspendedError(ResultError):
    """Code and history disagree: the run waits, unharmed, for code that fits. The message holds the diagnosis."""


class RunPrunedError(ResultError):
    """The run's history was taken away (`RunPruned`): digests are left, and who did that, when and why."""

    def __init__(self, run_id: str, message: str = "") -> None:
        text = f"run {run_id!r} was pruned: its history was taken away; `holdfast show {run_id}` says by whom, and why"
        super().__init__(run_id, message or text)


class Evicted(BaseException):
    """The live instance of a run is being put away. Raised into workflow code so that it can decide nothing more."""
