"""The grammar of what runs say and are told: signals, requests, tokens, children, messages, pauses. See `invariants`."""

from __future__ import annotations

from typing import Any

from engine.core.events import (
    ChildCancelled,
    ChildCompleted,
    ChildFailed,
    ChildOutcomeIgnored,
    ChildStarted,
    ChildTerminated,
    FeedPublished,
    MessageSent,
    RequestAnswered,
    RequestFailed,
    RequestReceived,
    RunPaused,
    RunUnpaused,
    SendAccepted,
    SendRejected,
    SignalReceived,
    StatePublished,
    TaskHandedOut,
)


class Words:
    """What the events so far have said of messages. `of_epoch` is what one epoch says; ids of calls begin anew in each."""

    def __init__(self) -> None:
        self.received: set[tuple[str, str]] = set()  # kind and id of every message, over all epochs
        self.carried: set[tuple[int, str, str]] = set()
        self.answered: set[str] = set()
        self.paused = False
        self.epoch = 0
        self.new_epoch(0)

    def new_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.children: dict[str, str] = {}
        self.children_over: set[str] = set()
        self.sent: set[str] = set()
        self.told: set[str] = set()


def wrong_with(words: Words, tasks: Any, event: Any) -> str | None:
    """What breaks the grammar, or None. Raises `LookupError` for an event that is none of these."""
    match event:
        case SignalReceived() | RequestReceived():
            return _message(words, event)
        case RequestAnswered(request=request) | RequestFailed(request=request):
            if ("RequestReceived", request) not in words.received:
                return "answers what was never accepted"
            if request in words.answered:
                return "answers again"
            words.answered.add(request)
        case TaskHandedOut(id=id_, attempt=attempt):
            if id_ in tasks.over:
                return f"it is {tasks.over[id_]} already"
            if attempt != tasks.started.get(id_):
                return "that attempt did not begin"
        case ChildStarted(id=id_, run=run):
            if id_ in words.children:
                return "started twice"
            words.children[id_] = run
        case ChildCompleted(id=id_) | ChildFailed(id=id_):
            if id_ not in words.children or id_ in words.children_over:
                return "no such child is running"
            words.children_over.add(id_)
        case ChildCancelled(run=run) | ChildTerminated(run=run):
            if run not in words.children.values():
                return "no such child was started"
        case MessageSent(id=id_):
            if id_ in words.sent:
                return "sent twice"
            words.sent.add(id_)
        case SendAccepted(id=id_) | SendRejected(id=id_):
            if id_ not in words.sent or id_ in words.told:
                return "no such message is under way"
            words.told.add(id_)
        case RunPaused():
            words.paused = True
        case RunUnpaused():
            if not words.paused:
                return "it was not paused"
            words.paused = False
        case StatePublished() | FeedPublished() | ChildOutcomeIgnored():
            return None
        case _:
            raise LookupError(event)
    return None


def _message(words: Words, event: Any) -> str | None:
    kind = type(event).__name__
    if not event.carried:
        if (kind, event.id) in words.received:
            return "received twice"
        words.received.add((kind, event.id))
        return None
    if (kind, event.id) not in words.received:
        return "carried over, and never received"
    if (words.epoch, kind, event.id) in words.carried:
        return "carried over twice"
    words.carried.add((words.epoch, kind, event.id))
    return None
