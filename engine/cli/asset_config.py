"""``KEY.FIELD=VALUE`` on a command line as configuration of assets, by the types of their `Config`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import msgspec

from engine.assets import Definitions, Secret
from engine.cli.arguments import decode_text, type_text
from engine.cli.problems import Problem

__all__ = ["config_of"]


def config_of(definitions: Definitions, words: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What is configured, as JSON, by the key that a request takes. Raises `Problem` that names the word."""
    config: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        key, dot, field = name.rpartition(".")
        if not (equals and dot and key):
            raise Problem(f"--config {word!r} is not of the form KEY.FIELD=VALUE")
        node = definitions.node_of(key)
        if node.wiring.config is None:
            raise Problem(
                f"--config {word!r}: {key} takes no configuration: no parameter of it is annotated with a Config"
            )
        kind = node.wiring.config[1]
        types = {each.encode_name: each.type for each in msgspec.structs.fields(kind)}
        if field not in types:
            close = difflib.get_close_matches(field, types, n=1)
            meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(types) or 'none'}"
            raise Problem(f"--config {word!r}: {kind.__name__} of {key} has no field {field}; {meant}")
        own = config.setdefault(node.name, {})
        if field in own:
            raise Problem(f"--config {word!r}: {key}.{field} is given twice")
        try:
            named = types[field] is Secret and not text.startswith("{")
            own[field] = msgspec.to_builtins(Secret(text) if named else decode_text(text, types[field]))
        except (msgspec.MsgspecError, ValueError) as error:
            raise Problem(f"--config {word!r}: {field} needs {type_text(types[field])}, got {text!r}") from error
    return config
