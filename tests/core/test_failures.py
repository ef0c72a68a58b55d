"""Exceptions as data and back: themselves or `TaskError`, with causes; nothing they do can hurt the engine."""

from __future__ import annotations

import asyncio
import builtins
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import task, workflow
from engine.core.failures import (
    ERRORS_MAX,
    TEXT_MAX,
    ErrorInfo,
    decode_error,
    describe,
    encode_error,
    rebuild,
    type_name,
)
from engine.errors import (
    HistoryError,
    PayloadTooLarge,
    RequestFailedError,
    RequestRefused,
    RunCancelledError,
    RunFailedError,
    RunSuspendedError,
    RunTerminatedError,
    TaskError,
    TaskTimeout,
)
from tests.core.harness import World, ending, play


class Declined(Exception):
    pass


class Priced(Exception):
    def __init__(self, price: float, currency: str) -> None:
        super().__init__(price, currency)
        self.price = price


class Stubborn(Exception):
    def __init__(self, *, required: int) -> None:
        super().__init__("stubborn")


def again(error: BaseException, *raises: type[BaseException]) -> BaseException:
    """Recorded, and read again."""
    return rebuild(decode_error(encode_error(describe(error))), raises)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def made_of_a_text(cls: Any) -> bool:
    if not (isinstance(cls, type) and issubclass(cls, Exception)) or issubclass(
        cls, BaseExceptionGroup | StopIteration
    ):
        return False
    try:
        cls("text")
    except TypeError:  # UnicodeDecodeError and its like
        return False
    return True


BUILTINS = sorted(name for name, cls in vars(builtins).items() if made_of_a_text(cls))


@pytest.mark.parametrize("name", BUILTINS)
def test_builtins_come_back_as_themselves(name: str) -> None:
    cls = getattr(builtins, name)
    error = cls("text")
    back = again(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)


def test_stop_iteration_cannot_be_raised_into_a_future_and_is_data() -> None:
    back = again(StopIteration(3))
    assert isinstance(back, TaskError)
    assert back.type == "StopIteration"

    @task
    def exhausted() -> int:
        return next(iter([]))

    @workflow
    async def uses() -> str:
        try:
            await exhausted()
        except TaskError as error:
            return error.type
        return "never"

    assert ending(play(World(uses()))) == ("completed", b'"StopIteration"')


@pytest.mark.parametrize(
    "error",
    [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), KeyboardInterrupt("x"), SystemExit(3), GeneratorExit(),
     asyncio.CancelledError("x"), ExceptionGroup("several", [ValueError("a")]), BaseExceptionGroup("b", [SystemExit(1)]),
     Declined("a"), Stubborn(required=1)],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_everything_else_is_a_task_error_that_says_what_it_was(error: BaseException) -> None:
    back = again(error)
    assert type(back) is TaskError
    assert back.type == type_name(type(error))
    assert back.message == str(error)


def test_declared_types_come_back_as_themselves() -> None:
    back = again(Priced(1.5, "EUR"), Declined, Priced)
    assert type(back) is Priced
    assert (back.price, back.args) == (1.5, (1.5, "EUR"))
    assert type(again(Stubborn(required=1), Stubborn)) is TaskError, "its constructor does not take its args"
    impostor = type("Declined", (Exception,), {"__module__": "elsewhere"})
    assert type(again(impostor("x"), Declined)) is TaskError, "a name is a name with its module"


def test_the_engines_own_errors_come_back_as_themselves() -> None:
    assert type(again(PayloadTooLarge("big"))) is PayloadTooLarge
    assert isinstance(again(TaskTimeout("late")), TimeoutError)
    back = again(raised(TaskError("shop.Gone", "away", "tb")))
    assert (type(back), back.type, back.message) == (TaskError, "shop.Gone", "away")  # type: ignore[attr-defined]
    assert str(back) == "shop.Gone: away"


def test_errors_about_runs_and_requests_come_back_with_what_they_are_about() -> None:
    failed = RunFailedError("r", type="ValueError", message="no", traceback="of the ValueError")
    failed.__cause__ = raised(ValueError("no"))
    back = again(raised(failed))
    assert isinstance(back, RunFailedError)
    assert (back.run_id, back.type, back.message, str(back)) == ("r", "ValueError", "no", str(failed))
    assert "raised" in back.traceback, "that of its cause"
    assert isinstance(back.__cause__, ValueError)
    for error in (
        RunCancelledError("r", "was cancelled"),
        RunTerminatedError("r", "ended"),
        RunSuspendedError("r", ""),
    ):
        back = again(raised(error))
        assert (type(back), back.run_id, str(back)) == (type(error), "r", str(error))  # type: ignore[attr-defined]
    for refusal in (RequestRefused("q", "no"), RequestFailedError("q", "no")):
        back = again(raised(refusal))
        assert (type(back), back.request_id, str(back)) == (type(refusal), "q", "no")  # type: ignore[attr-defined]


def test_errors_about_runs_recorded_by_their_text_alone_are_data_as_they_were() -> None:
    """By histories from before they were more: what a replay sees must not change."""
    for name in ("RunFailedError", "RunCancelledError", "RequestRefused"):
        back = rebuild(ErrorInfo(type=f"engine.errors.{name}", message="text", args=("text",)))
        assert (type(back), back.type) == (TaskError, f"engine.errors.{name}")  # type: ignore[attr-defined]


def test_nothing_is_imported_by_a_recorded_path() -> None:
    for name in ("os.system", "subprocess.CalledProcessError", "engine.errors.__all__", "engine.errors.annotations",
                 "print", "__import__", "", "engine.errors.", "builtins.ValueError", "a" * 10_000):  # fmt: skip
        assert type(rebuild(ErrorInfo(type=name, message="m"))) is TaskError


def test_causes_notes_and_tracebacks() -> None:
    def inner() -> None:
        raise KeyError("k")

    try:
        try:
            inner()
        except KeyError as cause:
            raise Declined("no") from cause
    except Declined as error:
        error.add_note("a note")
        info = describe(error)
    assert info.type == f"{__name__}.Declined"
    assert "in test_causes_notes_and_tracebacks" in info.traceback
    assert info.cause is not None
    assert "in inner" in info.cause.traceback
    back = rebuild(decode_error(encode_error(info)))
    assert isinstance(back, TaskError)
    assert back.traceback == info.traceback
    assert isinstance(back.__cause__, KeyError)
    assert back.__notes__[0] == "a note"
    assert back.__notes__[1].startswith("Recorded traceback (most recent call last):\n")


def test_context_counts_as_cause_unless_it_was_suppressed() -> None:
    try:
        try:
            raise KeyError("k")
        except KeyError:
            raise Declined("no")  # noqa: B904
    except Declined as error:
        assert describe(error).cause is not None
    try:
        try:
            raise KeyError("k")
        except KeyError:
            raise Declined("no") from None
    except Declined as error:
        assert describe(error).cause is None


def chain(length: int) -> BaseException:
    error: BaseException = ValueError(0)
    for n in range(1, length):
        outer = ValueError(n)
        outer.__cause__, error = error, outer
    return error


def count(info: ErrorInfo | None) -> int:
    return 0 if info is None else 1 + count(info.cause) + sum(map(count, info.group))


def test_long_chains_are_cut() -> None:
    assert count(describe(chain(5))) == 5
    assert count(describe(chain(500))) <= ERRORS_MAX
    loop = ValueError("a")
    loop.__context__ = KeyError("b")
    loop.__context__.__context__ = loop
    assert count(describe(loop)) <= ERRORS_MAX


def test_trees_of_groups_are_cut_too() -> None:
    """Sixteen groups of sixteen, sixteen deep, with causes: it must not take for ever, or a gigabyte."""
    group: Exception = ValueError("leaf")
    for _ in range(20):
        group = ExceptionGroup("g", [group] * 16)
        group.__cause__ = group.exceptions[0]
    info = describe(group)
    assert count(info) <= ERRORS_MAX
    assert len(encode_error(info)) < 1_000_000


def test_huge_texts_keep_both_ends() -> None:
    info = describe(ValueError("a" + "x" * 10 * TEXT_MAX + "z"))
    assert TEXT_MAX <= len(info.message) < TEXT_MAX + 100
    assert info.message.startswith("ax")
    assert info.message.endswith("xz")
    assert "characters left out" in info.message
    nested = chain(ERRORS_MAX)
    walk: BaseException | None = nested
    while walk is not None:
        walk.args = ("y" * 10 * TEXT_MAX,)
        walk = walk.__cause__
    assert len(encode_error(describe(nested))) < 1_500_000


class Raises(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Recurses(Exception):
    def __str__(self) -> str:
        return str(self)


class NoString(Exception):
    def __str__(self) -> Any:
        return 3  # noqa: PLE0307


class StrangeArgs(Exception):
    args = property(lambda _self: 1 / 0)  # type: ignore[assignment]


class StrangeNotes(Exception):
    @property
    def __notes__(self) -> Any:
        raise RuntimeError("no notes")


class BadNote:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def hostile() -> list[BaseException]:
    with_notes = ValueError("x")
    with_notes.__notes__ = 5  # type: ignore[assignment]
    bad_note = ValueError("x")
    bad_note.__notes__ = [BadNote(), "\ud800", "n" * TEXT_MAX * 3]  # type: ignore[list-item]
    many_notes = ValueError("x")
    for n in range(5_000):
        many_notes.add_note("note" * 100 + str(n))
    odd_module = type("Odd", (Exception,), {"__module__": "\ud800"})
    no_module = type("None", (Exception,), {"__module__": None})
    return [
        Raises("a"), Recurses("a"), NoString("a"), StrangeArgs("a"), StrangeNotes("a"), with_notes, bad_note, many_notes,
        odd_module("a"), no_module("a"), ValueError("\ud800\udfff"), ValueError("\x00\x1b[31m"), ValueError(float("nan")),
        ValueError(2**200), ValueError(object()), ValueError(*range(10_000)), ValueError(b"\xff"), KeyError("\ud800"),
        OSError(2, "gone", "/no/such"), OSError(2, "gone", b"\xff"), SyntaxError("bad", ("f", 1, 2, "text")), RecursionError(),
        ExceptionGroup("\ud800", [Raises("a")]),
    ]  # fmt: skip


@pytest.mark.parametrize("error", hostile(), ids=lambda e: type(e).__name__)
def test_hostile_exceptions_are_described_recorded_and_rebuilt(error: BaseException) -> None:
    caught = raised(error)
    info = describe(caught)
    data = encode_error(info)
    assert len(data) < 1_000_000
    back = rebuild(decode_error(data), (type(error),))
    assert isinstance(back, Exception)
    describe(back)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.binary(), max_size=4),
    st.sampled_from([ValueError, KeyError, OSError, RuntimeError, Declined, ImportError, UnicodeError]),
)
def test_any_arguments_survive_or_are_left_to_the_text(args: list[Any], cls: type[Exception]) -> None:
    error = cls(*args)
    info = decode_error(encode_error(describe(error)))
    back = rebuild(info, (Declined,))
    assert type(back) in (type(error), TaskError)
    if info.args is not None and type(back) is type(error) and not isinstance(error, OSError):
        assert len(back.args) == len(args)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"type":3}', b"\xff"])
def test_what_is_no_recorded_error_is_a_history_error(damage: bytes) -> None:
    with pytest.raises(HistoryError, match="cannot be read"):
        decode_error(damage)


def test_a_workflow_sees_the_cause_of_a_failed_task() -> None:
    @task(raises=(Declined,))
    async def pays() -> None:
        try:
            raise ValueError("card")
        except ValueError as cause:
            raise Declined("no") from cause

    @workflow
    async def buys() -> str:
        try:
            await pays()
        except Declined as error:
            return f"{error} because of {error.__cause__!r}"
        return "never"

    assert ending(play(World(buys()))) == ("completed", b"\"no because of ValueError('card')\"")


@pytest.mark.parametrize("error", hostile(), ids=lambda e: type(e).__name__)
def test_hostile_exceptions_end_a_run_and_nothing_else(error: BaseException) -> None:
    @workflow
    async def ends() -> None:
        raise error

    assert ending(play(World(ends())))[0] == "failed"
