"""Edits of a log, by kind. Each changes what was recorded, whenever it changes anything at all.

`PLAIN` leave the digests as they are, or break them: a pass over the chains finds each. `COVERED` are followed by
`Editor.recompute`, so that all chains hold again: only a seal finds those.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.audit.logs import Editor

Edit = Callable[[Editor, random.Random], object]
COLUMNS = "header, payload, salt, payload_digest, digest"


def some_event(edit: Editor, chance: random.Random, where: str = "1") -> Any:
    """Position, stream, version of an event."""
    return chance.choice(edit(f"SELECT position, stream, version FROM events WHERE {where} ORDER BY position"))


def flipped(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


def flip_event(edit: Editor, chance: random.Random) -> None:
    column = chance.choice(["header", "payload", "salt", "payload_digest", "digest"])
    position, *_ = some_event(edit, chance, f"length({column}) > 0")
    kind, data = edit(f"SELECT typeof({column}), CAST({column} AS BLOB) FROM events WHERE position = ?", position)[0]
    new = "CAST(? AS TEXT)" if kind == b"text" else "?"
    edit(f"UPDATE events SET {column} = {new} WHERE position = ?", flipped(data, chance), position)


def flip_number(edit: Editor, chance: random.Random) -> None:
    position, stream, version = some_event(edit, chance)
    bit = 1 << chance.randrange(16)
    if chance.random() < 0.5:
        edit("UPDATE OR IGNORE events SET version = ? WHERE position = ?", version ^ bit, position)
    else:
        edit("UPDATE OR IGNORE events SET stream = ? WHERE position = ?", stream ^ bit, position)


def flip_head(edit: Editor, chance: random.Random) -> None:
    id_, name, version, digest = chance.choice(
        edit("SELECT id, CAST(name AS BLOB), version, digest FROM streams ORDER BY id")
    )
    match chance.randrange(4):
        case 0:
            place = name.index(b":") + 1  # (in front of it is what kind of stream it is)
            changed = name[:place] + flipped(name[place:], chance)
            edit("UPDATE OR IGNORE streams SET name = CAST(? AS TEXT) WHERE id = ?", changed, id_)
        case 1:
            edit("UPDATE streams SET version = ? WHERE id = ?", version ^ (1 << chance.randrange(16)), id_)
        case 2:
            edit("UPDATE streams SET digest = ? WHERE id = ?", flipped(digest, chance), id_)
        case _:
            edit("UPDATE OR IGNORE streams SET id = ? WHERE id = ?", id_ ^ (1 << chance.randrange(8)), id_)


def delete_event(edit: Editor, chance: random.Random) -> None:
    edit("DELETE FROM events WHERE position = ?", some_event(edit, chance)[0])


def delete_and_close_the_gap(edit: Editor, chance: random.Random) -> None:
    position, stream, version = some_event(edit, chance)
    edit("DELETE FROM events WHERE position = ?", position)
    for other, at in edit(
        "SELECT position, version FROM events WHERE stream = ? AND version > ? ORDER BY 2", stream, version
    ):
        edit("UPDATE events SET version = ? WHERE position = ?", at - 1, other)
    edit("UPDATE streams SET version = version - 1 WHERE id = ?", stream)


def truncate_stream(edit: Editor, chance: random.Random) -> None:
    _, stream, version = some_event(edit, chance)
    edit("DELETE FROM events WHERE stream = ? AND version >= ?", stream, version)
    if chance.random() < 0.5:
        edit("UPDATE streams SET version = ? WHERE id = ?", version - 1, stream)


def truncate_log(edit: Editor, chance: random.Random) -> None:
    edit("DELETE FROM events WHERE position >= ?", some_event(edit, chance)[0])


def swap_contents(edit: Editor, chance: random.Random) -> None:
    (one, *_), (other, *_) = some_event(edit, chance), some_event(edit, chance)
    rows = {each: edit(f"SELECT {COLUMNS} FROM events WHERE position = ?", each)[0] for each in (one, other)}
    for to, of in ((one, other), (other, one)):
        edit(
            "UPDATE events SET header = CAST(? AS TEXT), payload = ?, salt = ?, payload_digest = ?, digest = ?"
            " WHERE position = ?",
            *rows[of],
            to,
        )


def swap_in_stream(edit: Editor, chance: random.Random) -> None:
    """The versions of two events, or their positions."""
    one, stream, first = some_event(edit, chance)
    other, _, second = some_event(edit, chance, f"stream = {stream}")
    if chance.random() < 0.5:
        edit("UPDATE events SET version = -1 WHERE position = ?", one)
        edit("UPDATE events SET version = ? WHERE position = ?", first, other)
        edit("UPDATE events SET version = ? WHERE position = ?", second, one)
    else:
        swap_positions(edit, one, other)


def swap_positions(edit: Editor, one: int, other: int) -> None:
    edit("UPDATE events SET position = -1 WHERE position = ?", one)
    edit("UPDATE events SET position = ? WHERE position = ?", one, other)
    edit("UPDATE events SET position = ? WHERE position = -1", other)


def insert_copy(edit: Editor, chance: random.Random) -> None:
    """An event again, at the end of a stream or with a version that cannot be."""
    position, *_ = some_event(edit, chance)
    _, stream, version = some_event(edit, chance)
    last = edit("SELECT max(version) FROM events WHERE stream = ?", stream)[0][0]
    at = chance.choice([last + 1, last + 7, 0, -version])
    edit(
        f"INSERT INTO events (stream, version, {COLUMNS}) SELECT ?, ?, {COLUMNS} FROM events WHERE position = ?",
        stream,
        at,
        position,
    )
    if at == last + 1 and chance.random() < 0.5:
        edit("UPDATE streams SET version = ? WHERE id = ?", at, stream)


def insert_between(edit: Editor, chance: random.Random) -> None:
    """An event of one's own in the middle of a stream, everything behind it renumbered."""
    _, stream, version = some_event(edit, chance)
    position, *_ = some_event(edit, chance)
    make_room(edit, stream, version)
    edit(
        f"INSERT INTO events (stream, version, {COLUMNS}) SELECT ?, ?, {COLUMNS} FROM events WHERE position = ?",
        stream,
        version,
        position,
    )


def make_room(edit: Editor, stream: int, version: int) -> None:
    behind = edit(
        "SELECT position, version FROM events WHERE stream = ? AND version >= ? ORDER BY 2 DESC", stream, version
    )
    for position, at in behind:
        edit("UPDATE events SET version = ? WHERE position = ?", at + 1, position)
    edit("UPDATE streams SET version = version + 1 WHERE id = ?", stream)


def move_event(edit: Editor, chance: random.Random) -> None:
    position, *_ = some_event(edit, chance)
    id_ = chance.choice(edit("SELECT id FROM streams ORDER BY id"))[0]
    edit("UPDATE OR IGNORE events SET stream = ? WHERE position = ?", id_, position)


def halves_of_a_payload(edit: Editor, chance: random.Random) -> None:
    """The payload destroyed and the salt kept, or the other way round; or a byte moved from one to the other."""
    position, *_ = some_event(edit, chance, "salt IS NOT NULL AND length(CAST(payload AS BLOB)) > 0")
    salt, payload = edit("SELECT salt, CAST(payload AS BLOB) FROM events WHERE position = ?", position)[0]
    match chance.randrange(5):
        case 0:
            edit("UPDATE events SET payload = NULL WHERE position = ?", position)
        case 1:
            edit("UPDATE events SET salt = NULL WHERE position = ?", position)
        case 2:
            edit("UPDATE events SET payload_digest = NULL WHERE position = ?", position)
        case 3:
            edit(
                "UPDATE events SET salt = ?, payload = ? WHERE position = ?", salt + payload[:1], payload[1:], position
            )
        case _:
            edit("UPDATE events SET salt = ?, payload = ? WHERE position = ?", salt[:-1], salt[-1:] + payload, position)


def replace_payload(edit: Editor, chance: random.Random) -> None:
    position, *_ = some_event(edit, chance)
    new = chance.choice([b"8", b"another", 5, 2.5, ""])
    edit("UPDATE events SET payload = ? WHERE position = ?", new, position)


def drop_head(edit: Editor, chance: random.Random) -> None:
    edit("DELETE FROM streams WHERE id = ?", some_event(edit, chance)[1])


def empty_stream(edit: Editor, chance: random.Random) -> None:
    _, stream, _ = some_event(edit, chance)
    edit("DELETE FROM events WHERE stream = ?", stream)
    if chance.random() < 0.5:
        edit("UPDATE streams SET version = 0 WHERE id = ?", stream)


PLAIN: list[Edit] = [
    flip_event, flip_number, flip_head, delete_event, delete_and_close_the_gap, truncate_stream, truncate_log,
    swap_contents, swap_in_stream, insert_copy, insert_between, move_event, halves_of_a_payload, replace_payload,
    drop_head, empty_stream,
]  # fmt: skip


# -- with everything computed anew -----------------------------------------------------------------------------------------


def sealed(edit: Editor) -> str:
    """Which events a seal covers that was made before the last ones came."""
    last = edit("SELECT max(e.position) FROM events e JOIN streams s ON s.id = e.stream WHERE s.name LIKE 'seal:%'")[0][
        0
    ]
    return f"position < {last}"


def covered_header(edit: Editor, chance: random.Random) -> None:
    position, *_ = some_event(edit, chance, sealed(edit))
    edit('UPDATE events SET header = \'{"type":"RunStarted","at":1}\' WHERE position = ?', position)


def covered_payload(edit: Editor, chance: random.Random) -> None:
    position, *_ = some_event(edit, chance, f"salt IS NOT NULL AND {sealed(edit)}")
    edit("UPDATE events SET payload = 'forged' WHERE position = ?", position)


def covered_deletion(edit: Editor, chance: random.Random) -> None:
    edit("DELETE FROM events WHERE position = ?", some_event(edit, chance, sealed(edit))[0])


def covered_truncation_of_a_stream(edit: Editor, chance: random.Random) -> None:
    _, stream, version = some_event(edit, chance, sealed(edit))
    edit("DELETE FROM events WHERE stream = ? AND version >= ?", stream, version)


def covered_truncation_of_the_log(edit: Editor, chance: random.Random) -> None:
    edit("DELETE FROM events WHERE position >= ?", some_event(edit, chance, sealed(edit))[0])


def covered_removal_of_a_stream(edit: Editor, chance: random.Random) -> None:
    _, stream, _ = some_event(edit, chance, sealed(edit))
    edit("DELETE FROM events WHERE stream = ?", stream)
    edit("DELETE FROM streams WHERE id = ?", stream)


def covered_insertion(edit: Editor, chance: random.Random) -> None:
    """In the middle of the log: everything behind it moves one position up."""
    position, stream, _ = some_event(edit, chance, sealed(edit))
    for (each,) in edit("SELECT position FROM events WHERE position >= ? ORDER BY position DESC", position):
        edit("UPDATE events SET position = position + 1 WHERE position = ?", each)
    edit(
        "INSERT INTO events (position, stream, version, header, digest) VALUES (?, ?, -1, '{\"type\":\"Forged\"}', x'')",
        position,
        stream,
    )


def covered_swap(edit: Editor, chance: random.Random) -> None:
    """Of any two events, also of different streams: the order of the log is changed, and that of each stream is not."""
    (one, *_), (other, *_) = some_event(edit, chance, sealed(edit)), some_event(edit, chance, sealed(edit))
    if one != other:
        swap_positions(edit, one, other)


def covered_move(edit: Editor, chance: random.Random) -> None:
    position, stream, _ = some_event(edit, chance, sealed(edit))
    others = [id_ for (id_,) in edit("SELECT id FROM streams WHERE id <> ? ORDER BY id", stream)]
    edit("UPDATE events SET version = -1, stream = ? WHERE position = ?", chance.choice(others), position)


def covered_renaming(edit: Editor, chance: random.Random) -> None:
    _, stream, _ = some_event(edit, chance, sealed(edit))
    edit("UPDATE streams SET name = name || 'x' WHERE id = ?", stream)


COVERED: list[Edit] = [
    covered_header, covered_payload, covered_deletion, covered_truncation_of_a_stream, covered_truncation_of_the_log,
    covered_removal_of_a_stream, covered_insertion, covered_swap, covered_move, covered_renaming,
]  # fmt: skip
