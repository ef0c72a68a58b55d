"""Every event of a history as what a person reads in one line. Pure: from its header and its payload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from engine.cli.readable import by_and_why, clipped, clock, duration, one_line

__all__ = ["about", "detail", "short_id"]

_SECOND: Final = 1_000_000  # microseconds
_WIDTH: Final = 100
_SILENT: Final = frozenset({"seed", "rule", "python", "anyio", "carried", "parent_epoch", "attributes"})
_TIMES: Final = frozenset({"deadline", "retry_at", "begins_at"})
_ERRORS: Final = frozenset({"RunSuspended", "TaskFailed", "AttemptFailed", "RunFailed"})
_NOT_DELIVERED: Final[Mapping[str, str]] = {"not_found": "no such run", "closed": "the run has ended"}
_WITH_NAMES: Final = frozenset(
    {"SignalReceived", "RequestReceived", "RequestAnswered", "RequestFailed", "StatePublished", "FeedPublished"}
)


def short_id(id_: str) -> str:
    """A task's id without the name of the workflow that all of them begin with."""
    return id_.partition("/")[2] or id_


def about(header: Mapping[str, Any]) -> str:
    """What an event is about: the id of a task, a timer, a child; the name of a signal or a state."""
    if header["type"] in _WITH_NAMES:
        return str(header.get("name") or header.get("request", ""))
    return short_id(str(header.get("id", "")))


def detail(header: Mapping[str, Any], payload: bytes | None) -> str:
    """What else it says."""
    phrase = _PHRASES.get(str(header["type"]))
    return _fields(header, payload) if phrase is None else phrase(header, payload)


def _fields(header: Mapping[str, Any], payload: bytes | None) -> str:
    """The fields that say something to a person, then the start of the payload."""
    said = []
    for key, value in header.items():
        if (
            key in {"type", "at", "id"} or key in _SILENT or value in ("", 0)
        ):  # what is of a later version may be anything
            continue
        shown = value
        if type(value) is int and key in _TIMES:
            shown = clock(value)
        elif type(value) is int and key == "took":
            shown = duration(value / _SECOND)
        said.append(f"{key}={shown}")
    if payload is not None:
        said.append(_error(payload) if header["type"] in _ERRORS else one_line(payload, _WIDTH))
    return " ".join(said)


def _error(payload: bytes | None) -> str:
    try:
        value = None if payload is None else msgspec.json.decode(payload)
    except (ValueError, RecursionError):  # a history is shown whatever stands in it
        return "(unreadable)"
    return clipped(str(value.get("message", "")), _WIDTH) if isinstance(value, dict) else ""


def _failure(header: Mapping[str, Any], payload: bytes | None) -> str:
    return ": ".join(each for each in (str(header.get("error", "")), _error(payload)) if each)


def _received(header: Mapping[str, Any], payload: bytes | None) -> str:
    by = f" by {header['by']}" if header.get("by") else ""
    carried = ", carried over from the epoch before" if header.get("carried") else ""
    why = f": {header['reason']}" if header.get("reason") else ""
    return f"{one_line(payload, _WIDTH)}{by}{why} (id {header['id']}{carried})"


def _child_started(header: Mapping[str, Any], payload: bytes | None) -> str:
    close = header.get("parent_close", "cancel")
    rest = "" if close == "cancel" else f", {close} it at our end" if close == "terminate" else ", outlives us"
    rest += f", deadline {clock(header['deadline'])}" if header.get("deadline") else ""
    return f"run {header['run']} of {header['workflow']}{rest}  {one_line(payload, _WIDTH)}"


def _child_failed(header: Mapping[str, Any], payload: bytes | None) -> str:
    if header["status"] == "conflict":
        return "its id belongs to another run"
    why = _failure(header, payload) or header.get("reason", "")
    return f"{header['status']}: {why}" if why else str(header["status"])


def _message_sent(header: Mapping[str, Any], payload: bytes | None) -> str:
    if header["kind"] == "signal":
        return f"signal {header['name']} to run {header['run']}  {one_line(payload, _WIDTH)}"
    return f"{header['kind']} to run {header['run']}{by_and_why('', header.get('reason', ''))}"


def _rejected(header: Mapping[str, Any], _payload: bytes | None) -> str:
    return f"not delivered: {_NOT_DELIVERED.get(str(header['reason']), header['reason'])}"


def _reconciled(header: Mapping[str, Any], payload: bytes | None) -> str:
    found = "it did not happen" if header["answer"] == "not_happened" else f"no answer: {_error(payload)}"
    return f"asked what became of attempt {header['attempt']}: {found}"


def _task_completed(header: Mapping[str, Any], payload: bytes | None) -> str:
    if not header.get("reused_run"):
        return _fields(header, payload)
    source = f"reused from run {header['reused_run']}, {short_id(header['reused_id'])}"
    return f"{source}  {one_line(payload, _WIDTH)}"


def _by_whom(header: Mapping[str, Any], _payload: bytes | None) -> str:
    return by_and_why(header.get("by", ""), header.get("reason", "")).removeprefix(":").strip()


def _queued(header: Mapping[str, Any], _payload: bytes | None) -> str:
    behind = f" behind run {header['behind']}" if header.get("behind") else ""
    asked = ", which it replaces" if header.get("replaces") else ""
    return f"for the singleton key {header['key']!r}{behind}{asked}"


def _cancel_requested(header: Mapping[str, Any], payload: bytes | None) -> str:
    said = _by_whom(header, payload)
    return f"{said}, unless it has begun".removeprefix(", ") if header.get("unless_begun") else said


def _ignored(header: Mapping[str, Any], _payload: bytes | None) -> str:
    return f"{header['outcome']}, when nobody waited for it any more"


def _heartbeat(header: Mapping[str, Any], payload: bytes | None) -> str:
    details = "" if payload is None else f"  {one_line(payload, _WIDTH)}"
    return f"attempt {header['attempt']} lives{details}"


def _started(header: Mapping[str, Any], payload: bytes | None) -> str:
    rerun = f"rerun of {header['rerun_of']}{by_and_why('', header.get('reason', ''))}  " if "rerun_of" in header else ""
    said = {key: value for key, value in header.items() if key not in {"rerun_of", "reason"}}
    return rerun + _fields(said, payload)


_TAKEN_BACK: Final[Mapping[str, str]] = {
    "turn": "the turn that ended it is taken back, and with it what led to that",
    "decisions": "what the last turn decided is taken back, and its fact told again",
    "end": "its end is taken back",
}


def _reopened(header: Mapping[str, Any], payload: bytes | None) -> str:
    who = _by_whom(header, payload)
    return f"{_TAKEN_BACK[header.get('takes_back', 'turn')]}{f'; {who}' if who else ''}"


def _forked(header: Mapping[str, Any], payload: bytes | None) -> str:
    who = _by_whom(header, payload)
    given = [short_id(id_) for id_ in header.get("substituted", ())]
    results = f", with the result of {', '.join(given)} given" if given else ""
    return f"from run {header['origin']} at version {header['version']}{results}{f'; {who}' if who else ''}"


def _prefix_ended(header: Mapping[str, Any], _payload: bytes | None) -> str:
    return "from here on it is a run of its own" + (", and the last fact is told again" if header.get("retold") else "")


def _destroyed(header: Mapping[str, Any], payload: bytes | None) -> str:
    versions = ", ".join(str(each) for each in header.get("versions", ()))
    what = f"the values of versions {versions}" if versions else "all values before this"
    who = _by_whom(header, payload)
    return f"{what} are made to be forgotten{f'; {who}' if who else ''}"


def _pruned(header: Mapping[str, Any], payload: bytes | None) -> str:
    events = f"{header['events']:,} events of {header['workflow'] or 'a workflow'}, {header['status']}"
    who = _by_whom(header, payload)
    return f"{events}, positions {header['first']} to {header['last']}{f'; {who}' if who else ''}"


_PHRASES: Final[Mapping[str, Callable[[Mapping[str, Any], bytes | None], str]]] = {
    "TaskCompleted": _task_completed,
    "SignalReceived": _received,
    "RequestReceived": _received,
    "RequestAnswered": lambda _, payload: one_line(payload, _WIDTH),
    "RequestFailed": _failure,
    "StatePublished": lambda _, payload: one_line(payload, _WIDTH),
    "FeedPublished": lambda _, payload: one_line(payload, _WIDTH),
    "AttributesGiven": lambda _, payload: one_line(payload, _WIDTH),
    "AttributesSet": lambda _, payload: one_line(payload, _WIDTH),
    "ContinuedAsNew": lambda _, payload: f"goes on from its beginning with {one_line(payload, _WIDTH)}",
    "ChildStarted": _child_started,
    "ChildCompleted": lambda _, payload: one_line(payload, _WIDTH),
    "ChildFailed": _child_failed,
    "ChildCancelled": lambda header, _: f"run {header['run']} is asked to end",
    "ChildTerminated": lambda header, _: f"run {header['run']} is to end without its code",
    "ChildOutcomeIgnored": _ignored,
    "MessageSent": _message_sent,
    "PatchMarked": lambda header, _: f"goes the new way at patch {header['name']}",
    "SendAccepted": lambda _, __: "delivered",
    "SendRejected": _rejected,
    "AttemptHeartbeat": _heartbeat,
    "TaskHandedOut": lambda header, _: f"attempt {header['attempt']} has handed it out; it waits for its token",
    "EffectReconciled": _reconciled,
    "RunPaused": _by_whom,
    "RunUnpaused": _by_whom,
    "RunResumed": _by_whom,
    "PayloadsDestroyed": _destroyed,
    "RunPruned": _pruned,
    "CancelRequested": _cancel_requested,
    "RunQueued": _queued,
    "RunTerminated": _by_whom,
    "RunStarted": _started,
    "RunReopened": _reopened,
    "RunForked": _forked,
    "PrefixEnded": _prefix_ended,
}
"""The events whose fields do not speak for themselves."""
