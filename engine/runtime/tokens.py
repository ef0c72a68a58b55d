"""Completion tokens: what a task hands out so that somebody else can end it.

A token names the run and the task, and carries a code that only who has seen the run's history (its seed) can make: it
cannot be guessed from the names.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from engine.core.failures import describe, encode_error
from engine.core.lineage import idempotency_key
from engine.core.values import ValueCodec
from engine.errors import HoldfastError, RunNotFound, TokenError
from engine.runtime.histories import head_of, read_epoch
from engine.runtime.large_values import carriage_of
from engine.runtime.mail import CompletionMail, data_message
from engine.runtime.sending import send_data
from engine.runtime.streams import stream_of
from engine.tasks import Task
from eventstore import EventStore

__all__ = ["NamesOfCall", "Token", "check_token", "complete_task", "parse_token", "reject_task", "token_of"]


class Token(Struct, frozen=True, array_like=True):
    """What a token says."""

    run_id: str
    epoch: int
    task_id: str
    code: str


def token_of(run_id: str, seed: str, epoch: int, task_id: str) -> str:
    """The token of one task call: printable, safe in a URL."""
    token = Token(run_id, epoch, task_id, _code(run_id, seed, epoch, task_id))
    return urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


class NamesOfCall(Struct, frozen=True, gc=False):
    """See `tasks.Names`: of a task call in the run that is here."""

    run_id: str
    seed: str
    epoch: int
    task_id: str

    @property
    def idempotency_key(self) -> str:
        return idempotency_key(self.run_id, self.epoch, self.task_id)

    @property
    def token(self) -> str:
        return token_of(self.run_id, self.seed, self.epoch, self.task_id)


def parse_token(text: str) -> Token:
    """What a token says, unchecked. Raises `TokenError` for what is none."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Token)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise TokenError(f"{str(text)[:80]!r} is not a completion token") from None


def check_token(token: Token, seed: str) -> None:
    """Raise `TokenError` unless it was made under this seed."""
    if not hmac.compare_digest(token.code, _code(token.run_id, seed, token.epoch, token.task_id)):
        raise TokenError(f"this completion token was not made for task {token.task_id!r} of run {token.run_id!r}")


async def complete_task(
    store: EventStore, text: str, value: Any, *, task: Task[..., Any] | None, message_id: str, by: str, reason: str
) -> None:
    """Send a task's result to its run. Raises as `Engine.complete`."""
    codec = ValueCodec(Any, "the value for a completion token") if task is None else task.result
    payload = codec.encode_checked(value, carriage_of(store))
    token = await _known(store, text, task)
    mail = CompletionMail(task=token.task_id, epoch=token.epoch, by=by, reason=reason)
    await send_data(store, data_message(stream_of(token.run_id), message_id, mail, payload), token.run_id)


async def reject_task(
    store: EventStore, text: str, error: BaseException | str, *, message_id: str, by: str, reason: str
) -> None:
    """Send a task's failure to its run. Raises as `Engine.reject`."""
    info = describe(HoldfastError(error) if isinstance(error, str) else error)
    token = await _known(store, text, None)
    mail = CompletionMail(task=token.task_id, epoch=token.epoch, error=info.type, by=by, reason=reason)
    await send_data(store, data_message(stream_of(token.run_id), message_id, mail, encode_error(info)), token.run_id)


async def _known(store: EventStore, text: str, task: Task[..., Any] | None) -> Token:
    """The token, once its run has vouched for it."""
    token = parse_token(text)
    try:
        head = await head_of(store, token.run_id)
    except RunNotFound:
        raise TokenError(f"this completion token is for a run that is not in this store, {token.run_id!r}") from None
    began = await read_epoch(store, head)
    if began is not None and began.epoch == token.epoch:
        check_token(token, began.seed)
        if task is not None and _task_name(token.task_id) != task.name:
            raise TokenError(f"this completion token is for task {token.task_id!r}, not for {task.where}")
        return token
    raise TokenError(f"this completion token is of an earlier epoch of run {token.run_id!r}")


def _task_name(task_id: str) -> str:
    return task_id.rpartition("/")[2].partition("#")[0]


def _code(run_id: str, seed: str, epoch: int, task_id: str) -> str:
    return hmac.new(seed.encode(), f"{run_id}\x00{epoch}\x00{task_id}".encode(), sha256).hexdigest()[:32]
