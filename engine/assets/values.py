"""What an asset's function is given, and what it may return beside a plain value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from msgspec import Struct

from engine.assets.metadata import MetadataValue, checked_metadata
from engine.assets.partitions import Window
from engine.errors import AssetError

__all__ = ["AssetContext", "Config", "Materialized", "Output", "Secret"]

T = TypeVar("T")


class AssetContext:
    """Where an asset's function is: a parameter that is annotated with it is given one.

    `key` of the (first) asset that is made, `partition` ("" without partitions), `window` of a partition of time,
    `environment`, `run_id`. `given_secrets`: the values that were asked for, which no error may tell.
    """

    def __init__(
        self,
        *,
        key: str,
        environment: str,
        run_id: str,
        partition: str = "",
        window: Window | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.key = key
        self.partition = partition
        self.window = window
        self.environment = environment
        self.run_id = run_id
        self.metadata: dict[str, MetadataValue] = {}
        self.given_secrets: set[str] = set()
        self._secrets: Mapping[str, str] = {} if secrets is None else secrets

    def secret(self, secret: Secret | str) -> str:
        """The value of a secret. Raises `AssetError` when there is none of that name."""
        name = secret.name if isinstance(secret, Secret) else secret
        found = self._secrets.get(name)
        if found is None:
            raise AssetError(
                f"asset {self.key}: there is no secret {name!r}: Definitions(secrets=...) takes a mapping that has it,"
                " such as os.environ"
            )
        self.given_secrets.add(found)
        return found

    def add_metadata(self, **entries: Any) -> None:
        """Say this of the version that is made. Raises `AssetError` for what is no metadata."""
        self.metadata.update(checked_metadata(entries, f"asset {self.key}"))


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration: subclass it, with defaults, and annotate a parameter with the subclass.

    What it is in a run is part of a version's provenance: other configuration makes another version. Put secrets into
    it as a `Secret`, which is the name of one.
    """


class Secret(Struct, frozen=True):
    """A secret by reference: its name in what `Definitions(secrets=...)` was given, such as `os.environ`.

    `AssetContext.secret` gives its value, where it is used; that is never in the log, and no part of provenance.
    """

    name: str


class Output(Generic[T]):
    """A value with what is to be said of it. `data_version`: what tells one content from another, if its author knows
    better than a digest of it.
    """

    __slots__ = ("data_version", "metadata", "value")

    def __init__(self, value: T, *, metadata: Mapping[str, Any] | None = None, data_version: str | None = None) -> None:
        self.value = value
        self.metadata = {} if metadata is None else dict(metadata)
        self.data_version = data_version


class Materialized:
    """What a function returns that has written its asset elsewhere by itself (``io="external"``).

    `data_version` tells one content from another: a digest, a table version, a row count with a time. Without one every
    materialization is a new version of the data.
    """

    __slots__ = ("data_version", "metadata")

    def __init__(self, *, data_version: str | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        self.data_version = data_version
        self.metadata = {} if metadata is None else dict(metadata)
