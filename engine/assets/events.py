"""What happens to an asset, as events in its stream ``asset:ENVIRONMENT/KEY``. Additive change only.

The header says what happened to which partition ("" of an asset without partitions), by which run, and every identity
that planning needs. The payload holds what people read: where the value lies, metadata, checks with failing rows, the
upstream versions one by one. It can be destroyed; what was planned from a version stays known.
`tests/assets/asset_wire.json` has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from engine.assets.metadata import MetadataValue
from engine.errors import AssetError
from engine.storage import Stored
from eventstore import NewEvent, RecordedEvent

__all__ = [
    "AssetEvent",
    "AssetFailed",
    "AssetObserved",
    "AssetPromoted",
    "AssetPublished",
    "AssetReset",
    "AssetRestored",
    "AssetSkipped",
    "AssetStarted",
    "AssetUnchanged",
    "CheckOutcome",
    "Details",
    "EnvironmentCreated",
    "PartitionsAdded",
    "PartitionsRemoved",
    "Upstream",
    "UpstreamVersion",
    "details_of",
    "new_event",
    "read_event",
]


class CheckOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a check has found of a value before it was published."""

    name: str
    passed: bool
    asset: str = ""  # its key
    severity: str = "blocking"
    description: str = ""
    metadata: Mapping[str, MetadataValue] = {}
    rows: tuple[Mapping[str, object], ...] = ()  # a sample of those that fail
    error: str = ""  # it raised this instead of finding anything
    where: str = ""  # file and line where it did
    seconds: float = 0.0


class UpstreamVersion(Struct, frozen=True, array_like=True):
    """A version that a value was made from."""

    partition: str
    version: int  # of its stream; 0: it was not there
    data_version: str


class Upstream(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The versions of one upstream asset that a value was made from.

    `versions` holds them while they are few; all of them are those that stood in the stream of `environment` (and of
    the one that this branches off) up to `as_of`.
    """

    key: str
    partitions: str  # as a `KeySet` says it
    count: int
    digest: str  # of all partitions and data versions
    environment: str = ""
    as_of: int = 0
    versions: tuple[UpstreamVersion, ...] = ()


class Details(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of `AssetPublished` and `AssetFailed`."""

    stored: Stored | None = None  # None: it lies elsewhere
    upstream: tuple[Upstream, ...] = ()
    checks: tuple[CheckOutcome, ...] = ()
    metadata: Mapping[str, MetadataValue] = {}
    config: Mapping[str, object] = {}
    error: str = ""


class _Event(Struct, frozen=True, tag_field="type", tag=True, kw_only=True, omit_defaults=True):
    at: int  # microseconds since the epoch
    partition: str = ""
    run: str = ""


class AssetStarted(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """A run has begun to make it. No other run makes the same of the same inputs while that one has not ended."""

    provenance: str
    reasons: tuple[str, ...] = ()  # why it was planned


class AssetUnchanged(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """It was planned, and need not be made: what it would be made from is what its current version was made from."""

    provenance: str
    reasons: tuple[str, ...] = ()


class AssetPublished(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """A version is there: from now on it is what is read. Payload: `Details`."""

    code_version: str
    data_version: str
    provenance: str
    inputs: Mapping[str, str] = {}  # by upstream key (and "#parameter" of further ones) the digest of what was read
    config: str = ""  # a digest
    started_at: int = 0
    rows: int | None = None
    size: int | None = None  # bytes
    warnings: int = 0  # checks that did not pass, and do not block


class AssetFailed(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """It was not made, or blocking checks did not pass: nothing was published. Payload: `Details`."""

    provenance: str = ""
    checks: tuple[str, ...] = ()  # the blocking ones that did not pass
    started_at: int = 0


class AssetSkipped(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """It was planned, and not made, because something upstream was not."""

    because: tuple[str, ...]  # keys, with the partition in brackets


class AssetObserved(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """What something else makes was looked at. Payload: `Details`."""

    data_version: str
    provenance: str = ""


class AssetRestored(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """An earlier version is the current one again; a person asked for it."""

    version: int  # of the `AssetPublished` or `AssetPromoted`
    by: str = ""
    reason: str = ""


class AssetReset(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """What a branch has of a partition no longer counts: what its base has is read again; a person asked for it."""

    by: str = ""
    reason: str = ""


class AssetPromoted(AssetPublished, frozen=True, kw_only=True, omit_defaults=True):
    """A version of a branch is the current one here, and was not computed again; a person asked for it."""

    environment: str  # the branch
    version: int  # of the branch's stream
    by: str = ""
    reason: str = ""


class PartitionsAdded(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """Keys of a dynamic partition set. In the stream ``partitions:NAME``."""

    keys: tuple[str, ...]
    by: str = ""
    reason: str = ""


class PartitionsRemoved(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """Keys that are no longer in it."""

    keys: tuple[str, ...]
    by: str = ""
    reason: str = ""


class EnvironmentCreated(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """A branch of the catalog. In the stream ``environment:NAME``."""

    base: str
    by: str = ""
    reason: str = ""


AssetEvent: TypeAlias = (
    AssetStarted
    | AssetUnchanged
    | AssetPublished
    | AssetFailed
    | AssetSkipped
    | AssetObserved
    | AssetRestored
    | AssetPromoted
    | AssetReset
    | PartitionsAdded
    | PartitionsRemoved
    | EnvironmentCreated
)

_encoder: Final = msgspec.json.Encoder(order="deterministic")
_header: Final = msgspec.json.Decoder(AssetEvent)
_details: Final = msgspec.json.Decoder(Details)


def new_event(event: AssetEvent, details: Details | None = None) -> NewEvent:
    """The event as the store takes it."""
    return NewEvent(_encoder.encode(event), None if details is None else _encoder.encode(details))


def read_event(recorded: RecordedEvent) -> AssetEvent:
    """What an event says. Raises `AssetError` for what no version of holdfast so far writes."""
    try:
        event: AssetEvent = _header.decode(recorded.header)
    except (ValueError, RecursionError) as error:
        raise AssetError(_unknown(recorded, error)) from None
    return event


def details_of(recorded: RecordedEvent) -> Details:
    """The payload of an event; empty `Details` when it was destroyed. Raises `AssetError` likewise."""
    if recorded.payload is None:
        return Details()
    try:
        return _details.decode(recorded.payload)
    except (ValueError, RecursionError) as error:
        raise AssetError(_unknown(recorded, error)) from None


def _unknown(recorded: RecordedEvent, error: Exception) -> str:
    return (
        f"version {recorded.version} of stream {recorded.stream!r} is no event of an asset that is known here: {error}"
    )
