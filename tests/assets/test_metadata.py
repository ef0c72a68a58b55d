"""Metadata: what it may be, and that it comes back as what it was."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.assets.metadata import (
    METADATA_BYTES_MAX,
    METADATA_ENTRIES_MAX,
    Json,
    Link,
    Markdown,
    MetadataValue,
    Moment,
    checked_metadata,
)
from engine.errors import AssetError


class Colour(Enum):
    RED = "red"


def recorded(value: Any) -> Any:
    checked = checked_metadata({"x": value}, "asset orders")
    back = msgspec.json.decode(msgspec.json.encode(checked), type=dict[str, MetadataValue])
    assert back == checked
    assert type(back["x"]) is type(checked["x"])
    return back["x"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("text", "text"),
        (3, 3),
        (10**30, 10**30),
        (0.5, 0.5),
        (1.0, 1.0),
        (True, True),
        (None, None),
        (Link("https://example.com"), Link("https://example.com")),
        (Markdown("*bold*"), Markdown("*bold*")),
        (Json({"a": [1, None]}), Json({"a": [1, None]})),
        ({"a": [1]}, Json({"a": [1]})),
        ([1, 2], Json([1, 2])),
        (date(2026, 1, 2), Moment("2026-01-02")),
        (datetime(2026, 1, 2, tzinfo=UTC), Moment("2026-01-02T00:00:00+00:00")),
        (pd.Timestamp("2026-01-02", tz="UTC"), Moment("2026-01-02T00:00:00+00:00")),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (float("nan"), "nan"),
        (np.float64("inf"), "inf"),
        (Decimal("1.50"), "1.50"),
        (PurePosixPath("/a/b"), "/a/b"),
        (UUID(int=3), str(UUID(int=3))),
        (timedelta(seconds=90), "0:01:30"),
        (Colour.RED, "red"),
    ],
)
def test_what_it_may_be(given: Any, kept: Any) -> None:
    assert recorded(given) == kept


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8")),
        st.lists,
        max_leaves=5,
    )
)
def test_json_comes_back(value: Any) -> None:
    assert recorded(Json(value)) == Json(value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": object()}, "asset orders: metadata 'x' is object; give text"),
        ({"x": {1, 2}}, "metadata 'x' is set"),
        ({"x": Json(object())}, "metadata 'x' cannot be written as JSON"),
        ({"x": [object()]}, "metadata 'x' cannot be written as JSON"),
        ({"x": "\ud800"}, "metadata 'x' cannot be written as JSON"),
        ({"": 1}, "'' cannot name an entry of metadata"),
        ({"a\nb": 1}, "cannot name an entry of metadata"),
        ({3: 1}, "3 cannot name an entry of metadata"),
        ({"x": "a" * METADATA_BYTES_MAX}, "bytes of metadata, at most 65,536"),
        ({str(number): 1 for number in range(METADATA_ENTRIES_MAX + 1)}, "101 entries of metadata; at most 100"),
    ],
)
def test_what_it_may_not_be(given: dict[Any, Any], said: str) -> None:
    with pytest.raises(AssetError) as raised:
        checked_metadata(given, "asset orders")
    assert said in str(raised.value)
    assert str(raised.value).startswith("asset orders: ")


def test_a_list_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(AssetError, match="metadata 'x' cannot be written as JSON"):
        checked_metadata({"x": endless}, "asset orders")
