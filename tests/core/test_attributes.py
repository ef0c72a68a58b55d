"""What can be an attribute of a run, and how many; what the fold says of them, and what a replay compares."""

from __future__ import annotations

import enum
import math
from datetime import date
from typing import Any

import pytest

from engine.core.attributes import (
    ATTRIBUTE_NAME_MAX,
    ATTRIBUTE_VALUE_BYTES_MAX,
    ATTRIBUTES_MAX,
    decode_attributes,
    encode_attributes,
)
from engine.core.compare import Mismatch, compare, describe_decision
from engine.core.decided import Decided
from engine.core.events import (
    AttributesGiven,
    AttributesSet,
    ContinuedAsNew,
    RunFailed,
    RunReopened,
    RunStarted,
    StatePublished,
    TaskFailed,
    TaskScheduled,
)
from engine.core.fold import RunState
from engine.errors import HoldfastError
from eventstore.limits import ATTRIBUTE_BYTES_MAX, NAME_BYTES_MAX

AT = 1_767_225_600_000_000


class Region(enum.StrEnum):
    EU = "eu"


def encoded(values: Any, *, removing: bool = False) -> bytes | None:
    return encode_attributes(values, where="here", removing=removing)


@pytest.mark.parametrize(
    "value", ["", "ü" * 500, "a" * ATTRIBUTE_VALUE_BYTES_MAX, 0, -(1 << 63), (1 << 63) - 1, 2.5, -0.0, True, False]
)
def test_scalars_come_back_as_they_were(value: Any) -> None:
    payload = encoded({"name": value})
    assert payload is not None
    (found,) = decode_attributes(payload).values()
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (1 << 63, "does not fit 64 bits"),
        (math.nan, "equals nothing"),
        (math.inf, "equals nothing"),
        ("a" * (ATTRIBUTE_VALUE_BYTES_MAX + 1), "has 1,001 bytes, at most 1,000"),
        ("ü" * 501, "has 1,002 bytes"),
        ("a\0b", "NUL"),
        ("\ud800", "lone surrogate"),
        (None, "must be a str, int, float or bool"),
        (date(2026, 1, 31), "of a date its isoformat()"),
        (Region.EU, "of an enum give its value"),
        (["eu"], "must be a str"),
        (b"eu", "must be a str"),
    ],
)
def test_what_cannot_be_a_value_is_named(value: Any, what: str) -> None:
    with pytest.raises(HoldfastError) as refused:
        encoded({"fine": 1, "region": value})
    assert "here: attribute 'region' " in str(refused.value)
    assert what in str(refused.value)


@pytest.mark.parametrize("name", ["", " ", "a b", "a=b", "a\n", "\ud800", "x" * (ATTRIBUTE_NAME_MAX + 1), 7, None])
def test_what_cannot_be_a_name_is_named(name: Any) -> None:
    with pytest.raises(HoldfastError, match="cannot name an attribute: 1 to 100 printable characters"):
        encoded({name: 1})


def test_there_are_so_many_and_no_more() -> None:
    assert encoded({str(n): n for n in range(ATTRIBUTES_MAX)})
    with pytest.raises(HoldfastError, match="at most 32 attributes, and this would make 33"):
        encoded({str(n): n for n in range(ATTRIBUTES_MAX + 1)})
    assert encoded({}) is None
    with pytest.raises(HoldfastError, match="by name"):
        encoded(["eu"])


def test_a_store_takes_what_is_allowed() -> None:
    assert ATTRIBUTE_VALUE_BYTES_MAX <= ATTRIBUTE_BYTES_MAX
    assert len("attribute:") + 4 * ATTRIBUTE_NAME_MAX <= NAME_BYTES_MAX


def test_the_same_values_are_the_same_bytes_in_any_order() -> None:
    assert encoded({"b": 1, "a": None}, removing=True) == encoded({"a": None, "b": 1}, removing=True)


def folded(*events: Any) -> RunState:
    state = RunState(run_id="r")
    for version, (event, payload) in enumerate(events, 1):
        state.apply(version, event, payload)
    return state


STARTED = (RunStarted(at=AT, workflow="w", seed="00"), b"{}")
GIVEN = (AttributesGiven(at=AT), b'{"who":"ann","region":"us"}')
FAILED = (TaskFailed(at=AT, id="w/t#1", error="E"), b'{"type":"E","message":""}')
SET = (AttributesSet(at=AT, id="w/set:attributes#1"), b'{"region":"eu","who":null,"amount":3}')
END = (RunFailed(at=AT, error="E"), b'{"type":"E","message":""}')


def test_the_last_word_holds() -> None:
    assert folded(STARTED, GIVEN).attributes == {"who": "ann", "region": "us"}
    assert folded(STARTED, GIVEN, SET).attributes == {"region": "eu", "amount": 3}


def test_epochs_keep_them() -> None:
    again = (RunStarted(at=AT, workflow="w", seed="01", epoch=1, attributes=("region", "amount")), b"{}")
    goes_on = (ContinuedAsNew(at=AT), b"{}")
    assert folded(STARTED, GIVEN, SET, goes_on, again).attributes == {"region": "eu", "amount": 3}


@pytest.mark.parametrize("takes_back", ["turn", "decisions"])
def test_a_turn_that_is_taken_back_has_set_nothing(takes_back: Any) -> None:
    again = (AttributesSet(at=AT, id="w/set:attributes#2"), b'{"amount":4}')
    state = folded(STARTED, GIVEN, FAILED, SET, again, END, (RunReopened(at=AT, takes_back=takes_back), None))
    assert state.attributes == {"who": "ann", "region": "us"}


def test_an_end_that_is_taken_back_leaves_them() -> None:
    state = folded(STARTED, GIVEN, FAILED, SET, (RunReopened(at=AT, takes_back="end"), None))
    assert state.attributes == {"region": "eu", "amount": 3}


@pytest.mark.parametrize("payload", [None, b"[1]", b'{"a":[1]}', b"\xff"])
def test_a_payload_that_was_destroyed_or_damaged_says_nothing(payload: bytes | None) -> None:
    assert folded(STARTED, GIVEN, (SET[0], payload)).attributes == {"who": "ann", "region": "us"}


def decisions(*items: tuple[Any, bytes | None]) -> dict[str, Decided]:
    return {event.id: Decided(event, payload) for event, payload in items}


def compared(recorded: bytes | None, decided: bytes | None) -> None:
    event = SET[0]
    compare(
        decisions((event, recorded)),
        decisions((event, decided)),
        version=1,
        complete=True,
        codec_of=lambda _: None,
    )


def test_a_replay_compares_what_is_set() -> None:
    compared(b'{"a":1}', b'{"a":1}')
    compared(None, b'{"a":1}')  # destroyed: it contradicts nobody
    with pytest.raises(Mismatch, match=r'set attributes {"a":1}.*set attributes {"a":2}'):
        compared(b'{"a":1}', b'{"a":2}')
    with pytest.raises(Mismatch):
        compared(b'{"a":1}', b'{"b":1}')


def test_another_decision_under_its_id_is_another() -> None:
    for other in (StatePublished(at=AT, id=SET[0].id, name="s"), TaskScheduled(at=AT, id=SET[0].id, task="t")):
        with pytest.raises(Mismatch):
            compare(decisions(SET), decisions((other, SET[1])), version=1, complete=True, codec_of=lambda _: None)
    assert describe_decision(Decided(*SET)).startswith('set attributes {"region":"eu"')
