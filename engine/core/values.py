"""User values as typed JSON, and back.

A `ValueCodec` writes one value of an annotated type; an `ArgumentsCodec` writes a call's arguments as one JSON object
by parameter name. Both are deterministic (`order="deterministic"`: the members of sets and the keys of dicts are
sorted), refuse what would not come back as what it was, and name the place that is wrong. No pickle, anywhere.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Struct

from engine.core.carriage import INLINE, PAYLOAD_INLINE_BYTES, Carriage, is_away, pack, refuse_away, same_away, unpack
from engine.core.nesting import outside
from engine.core.tabular import table_kind
from engine.errors import ArgumentsError, DefinitionError, HistoryError, NotRecordable, PayloadTooLarge

__all__ = ["PAYLOAD_INLINE_BYTES", "ArgumentsCodec", "Parameter", "ValueCodec", "present", "resolved_hints"]

_encoder: Final = msgspec.json.Encoder(order="deterministic")
_CLASSES: Final = (
    msgspec.inspect.StructType,
    msgspec.inspect.DataclassType,
    msgspec.inspect.NamedTupleType,
    msgspec.inspect.EnumType,
    msgspec.inspect.CustomType,
)
"""What a value may be made as by code of whoever wrote its type."""
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ValueCodec:
    """Writes and reads values of one annotated type. `where` names the place in messages ("the result of task x").

    `bytes_max`: how many bytes of one value are taken; more than a history holds is for who writes them elsewhere.
    `tabular`: whether there are tables in it, which travel only in a `Carriage` that takes them.
    """

    __slots__ = ("_carriage", "_decoder", "_foreign", "tabular", "type", "where")

    def __init__(self, type_: Any, where: str, *, bytes_max: int = PAYLOAD_INLINE_BYTES) -> None:
        self.type = type_
        self.where = where
        self._carriage = INLINE if bytes_max == PAYLOAD_INLINE_BYTES else Carriage(bytes_max)
        self._decoder, self.tabular, self._foreign = _read(type_, where)

    def encode(self, value: Any, carriage: Carriage | None = None) -> bytes:
        """The value as JSON. Raises `NotRecordable` or `PayloadTooLarge`, naming what and where."""
        return _encode(value, self.where, carriage or self._carriage, tabular=self.tabular)

    def encode_checked(self, value: Any, carriage: Carriage | None = None) -> bytes:
        """Like `encode`, and sure that `decode` will take it: a value that is not of its annotated type is refused."""
        data = _encode(value, self.where, carriage or self._carriage, tabular=self.tabular)
        if self.type is not Any:
            try:
                self._decoded(data, carriage)
            except Exception as error:
                raise NotRecordable(
                    f"{self.where} is annotated {_type_text(self.type)}, but the value does not fit: {error}"
                ) from error
        return data

    def decode(self, data: bytes, carriage: Carriage | None = None) -> Any:
        """The value of recorded JSON. Raises `NotRecordable` when it does not fit the annotated type any more, or lies
        where it could not be brought from.
        """
        refuse_away(data, self.where)
        try:
            return outside(self._decoded, data, carriage) if self._foreign else self._decoder.decode(data)
        except Exception as error:  # a user's __post_init__ may raise anything
            raise NotRecordable(
                f"{self.where} was recorded as something that {_type_text(self.type)} does not take: {error}"
            ) from error

    def _decoded(self, data: bytes, carriage: Carriage | None) -> Any:
        if not self.tabular:
            return self._decoder.decode(data)
        return _decode_tables(data, self.type, self.where, carriage or self._carriage)

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two recorded values are equal as values of the present type; of tables, whether they are the same."""
        if self.tabular or is_away(one):
            return same_away(one, other)
        try:
            return bool(self.decode(one) == self.decode(other))
        except NotRecordable:
            return False


class Parameter(Struct, frozen=True):
    """One parameter of a definition, as tools that make calls from text need it."""

    name: str
    type: Any  # Any where there is no annotation
    required: bool
    variadic: bool  # *args or **kwargs


class ArgumentsCodec:
    """Writes and reads the arguments of one function's calls."""

    __slots__ = ("_decoder", "_foreign", "_signature", "_simple", "_struct", "parameters", "plain", "tabular", "where")

    def __init__(self, fn: Callable[..., Any], where: str, *, signature: inspect.Signature | None = None) -> None:
        """`signature`: of the calls, if not the function's own."""
        self.where = where
        self._signature = inspect.signature(fn) if signature is None else signature
        hints = resolved_hints(fn, where)
        self.parameters = tuple(
            Parameter(
                p.name, hints.get(p.name, Any), p.default is p.empty and p.kind not in _VARIADIC, p.kind in _VARIADIC
            )
            for p in self._signature.parameters.values()
        )
        kinds = {p.kind for p in self._signature.parameters.values()}
        self._simple = kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}
        # How many arguments `check` need not be asked about, if all are given by position; -1: about any.
        self.plain = len(self.parameters) if self._simple else -1
        fields = [(p.name, _field_type(p, self._signature), UNSET) for p in self.parameters]
        read = [_read(each.type, f"parameter {each.name!r} of {where}") for each in self.parameters]
        self._struct = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=False)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._struct)
        self.tabular = any(each.tabular for each in read)
        self._foreign = any(each.foreign for each in read)

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise the `TypeError` that calling the function would raise for arguments its signature does not take."""
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError(f"{self.where}: {error}; its signature is {self._signature}") from None

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], carriage: Carriage) -> bytes:
        """The arguments as one JSON object. Raises `NotRecordable` or `PayloadTooLarge`, naming the parameter."""
        if self._simple and not self.tabular:  # nearly all there are; in place, for a fan-out does it for every task
            try:
                data = _encoder.encode(self._struct(*args, **kwargs))
            except Exception:
                data = b"null"  # what is wrong is said on the long way, as is what a null stands for
            if b"null" not in data and len(data) <= carriage.bytes_max:
                return data
        try:
            if self._simple:
                return _encode(self._struct(*args, **kwargs), self.where, carriage, tabular=self.tabular)
            bound = self._struct(**self._signature.bind(*args, **kwargs).arguments)
            return _encode(bound, self.where, carriage, tabular=self.tabular)
        except NotRecordable:
            for name, value in self._signature.bind(*args, **kwargs).arguments.items():
                _encode(value, f"argument {name!r} of {self.where}", carriage, tabular=self.tabular)
            raise

    def decode(self, data: bytes, carriage: Carriage) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments, of the annotated types. Raises `ArgumentsError` when they do not fit.

        A parameter that was not recorded (added since, with a default) is left to its default.
        """
        try:
            refuse_away(data, f"what {self.where} was called with")
            recorded = outside(self._recorded, data, carriage) if self._foreign else self._decoder.decode(data)
        except Exception as error:  # a user's __post_init__ may raise anything
            raise ArgumentsError(
                f"the arguments of {self.where} do not fit its signature {self._signature}: {error}"
            ) from error
        if self._simple and not self.tabular:  # tables cannot be looked for anything among them
            values = msgspec.structs.astuple(recorded)
            if UNSET not in values:
                return values, {}
        return self._spread(recorded)

    def _recorded(self, data: bytes, carriage: Carriage) -> Any:
        if not self.tabular:
            return self._decoder.decode(data)
        return _decode_tables(data, self._struct, self.where, carriage)

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two recorded sets of arguments are equal as values of the present types; tables by what they are."""
        if self.tabular or is_away(one):
            return same_away(one, other)
        try:
            return self._decoded(one) == self._decoded(other)
        except ArgumentsError:
            return False

    def _decoded(self, data: bytes) -> dict[str, Any]:
        args, kwargs = self.decode(data, INLINE)  # there are no tables among them
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def _spread(self, recorded: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        skipped = False
        for parameter in self._signature.parameters.values():
            value = getattr(recorded, parameter.name)
            if value is UNSET:
                skipped = True
                if parameter.default is parameter.empty and parameter.kind not in _VARIADIC:
                    raise ArgumentsError(f"the arguments of {self.where} lack {parameter.name!r}, which has no default")
            elif parameter.kind is parameter.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind is parameter.KEYWORD_ONLY or (
                skipped and parameter.kind is not parameter.POSITIONAL_ONLY
            ):
                kwargs[parameter.name] = value
            else:
                args.append(value)
        return tuple(args), kwargs


def resolved_hints(fn: Callable[..., Any], where: str) -> dict[str, Any]:
    """The function's annotations as types. Raises `DefinitionError` for a name that cannot be resolved."""
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception as error:
        raise DefinitionError(
            f"the annotations of {where} cannot be resolved ({error}): import the types it names at module level"
        ) from error


def _field_type(parameter: Parameter, signature: inspect.Signature) -> Any:
    match signature.parameters[parameter.name].kind:
        case inspect.Parameter.VAR_POSITIONAL:
            type_: Any = list[parameter.type]  # type: ignore[name-defined]
        case inspect.Parameter.VAR_KEYWORD:
            type_ = dict[str, parameter.type]  # type: ignore[name-defined]
        case _:
            type_ = parameter.type
    return type_ | msgspec.UnsetType if type_ is not Any else Any


class _Read(NamedTuple):
    """An annotation, read: what decodes its values, whether there are tables in them, and whether reading one may run
    code of whoever wrote the type (a `__post_init__`, say).
    """

    decoder: msgspec.json.Decoder[Any]
    tabular: bool
    foreign: bool


def _read(type_: Any, where: str) -> _Read:
    refusal = f"{where} is annotated {_type_text(type_)}, which cannot be written as typed JSON"
    advice = "use builtins, Structs, dataclasses, datetimes, UUIDs, Decimals, enums or bytes, or hand on a path"
    try:
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(type_)
    except TypeError as error:
        raise DefinitionError(f"{refusal} ({error}): {advice}") from error
    held = _held_types(type_)
    # Classes that msgspec would leave to a hook: tables, for which there is one, and what has none.
    kinds = [table_kind(found.cls) for found in held or () if isinstance(found, msgspec.inspect.CustomType)]
    if None in kinds:
        raise DefinitionError(f"{refusal}: {advice}")
    return _Read(decoder, bool(kinds), held is None or any(isinstance(found, _CLASSES) for found in held))


def _held_types(type_: Any) -> list[msgspec.inspect.Type] | None:
    """What the annotation is, and what it directly holds; None where that cannot be said."""
    try:
        info = msgspec.inspect.type_info(type_)
    except Exception:
        return None
    pending: list[Any] = [info]
    all_held: list[msgspec.inspect.Type] = []
    while pending:
        found = pending.pop()
        all_held.append(found)
        for attribute in ("types", "item_type", "item_types", "key_type", "value_type"):
            held = getattr(found, attribute, None)
            if held is not None:
                pending.extend(held if isinstance(held, tuple) else (held,))
    return all_held


def _encode(value: Any, where: str, carriage: Carriage, *, tabular: bool = False) -> bytes:
    tables: dict[str, bytes] = {}
    hook = carriage.attaching(tables, where) if tabular else None
    encoder = msgspec.json.Encoder(order="deterministic", enc_hook=hook) if tabular else _encoder
    try:
        try:
            data = encoder.encode(value)
        except TypeError:
            # A deterministic encoder takes only str keys; as builtins, dates, numbers and enums are such keys. What is
            # wrong in another way is refused here again, with the reason.
            data = _encoder.encode(msgspec.to_builtins(value, str_keys=True, order="deterministic", enc_hook=hook))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise NotRecordable(
            f"{where} cannot be written as typed JSON: {error}. Use builtins, Structs, dataclasses, datetimes, UUIDs,"
            " Decimals, enums or bytes, or write it to a file and hand on the path"
        ) from error
    if len(data) > carriage.bytes_max:
        raise PayloadTooLarge(
            f"{where} takes {len(data):,} bytes, a history holds at most {carriage.bytes_max:,} of one value:"
            " write it to a file and hand on the path"
        )
    if b"null" in data and not _finite(value, hook):
        # JSON has no NaN or infinity; msgspec writes them as null, which would come back as None.
        raise NotRecordable(f"{where} holds a NaN or an infinity, which JSON cannot hold: use None, or a string")
    if data[:1] == b" ":  # a `msgspec.Raw`, as somebody wrote it: that byte says that a value lies elsewhere
        data = data.lstrip()
    return pack(data, tables) if tables else data


def _decode_tables(data: bytes, type_: Any, where: str, carriage: Carriage) -> Any:
    plain, tables = unpack(data)
    return msgspec.json.decode(plain, type=type_, dec_hook=carriage.detaching(tables, where))


def _finite(value: Any, hook: Callable[[Any], Any] | None = None) -> bool:
    pending = [msgspec.to_builtins(value, str_keys=True, builtin_types=(bytes,), enc_hook=hook)]
    while pending:
        found = pending.pop()
        if isinstance(found, float):
            if not math.isfinite(found):
                return False
        elif isinstance(found, dict):
            pending.extend(found.values())
        elif isinstance(found, list | tuple | set | frozenset):
            pending.extend(found)
    return True


def _type_text(type_: Any) -> str:
    return type_.__qualname__ if isinstance(type_, type) and not typing.get_args(type_) else str(type_)


def present(payload: bytes | None, what: str) -> bytes:
    """The payload. Raises `HistoryError` when it was destroyed."""
    if payload is None:
        raise HistoryError(f"{what} was destroyed: the history still verifies, but it cannot be replayed")
    return payload
