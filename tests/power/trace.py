"""What a process did to the files of a folder, in order, as strace saw it.

It records the system calls themselves: nothing of ours runs in the process that is recorded, and what SQLite, Python or
the store do to a file by any way that is not known here is an error (`UnknownCall`) instead of an image that says nothing.
The index of the log (``-shm``) is shared memory that nobody syncs and every opening makes anew: it is left out, and so
are the guard, which is empty, and the files of leases, which are worth nothing without the process that locks them. Beside
some images there is anything in their place (`rounds.left_over`).
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Struct, msgpack

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 300
LEFT_OUT = ("-shm", "-guard", "-leases")
CHANGING = (
    "write pwrite64 writev pwritev pwritev2 ftruncate truncate fallocate fsync fdatasync sync syncfs sync_file_range"
    " openat openat2 open creat lseek mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat mmap sendfile"
    " copy_file_range splice dup dup2 dup3"
).split()
STRING_BYTES_MAX = 64 << 20


class Write(Struct, frozen=True, tag=True, array_like=True):
    file: int
    offset: int
    data: bytes


class Size(Struct, frozen=True, tag=True, array_like=True):
    file: int
    size: int


class Sync(Struct, frozen=True, tag=True, array_like=True):
    """A sync that has returned; it covers what was done to the file before it began."""

    file: int
    covers: int  # of the writes and sizes of this file since the beginning


class Name(Struct, frozen=True, tag=True, array_like=True):
    """A name now stands for a file, or for nothing."""

    folder: str
    name: str
    file: int | None
    is_folder: bool = False


class DirectorySync(Struct, frozen=True, tag=True, array_like=True):
    folder: str
    covers: int  # of the names of this folder


class Mark(Struct, frozen=True, tag=True, array_like=True):
    what: dict[str, Any]


Op: TypeAlias = Write | Size | Sync | Name | DirectorySync | Mark


class Recorded(Struct, frozen=True):
    """What happened, and the names of the files by number."""

    seed: int
    ops: list[Op]
    names: dict[int, str]

    def write(self, path: Path) -> None:
        path.write_bytes(lzma.compress(msgpack.encode(self)))


def read(path: Path) -> Recorded:
    """A recording that was written."""
    return msgpack.decode(lzma.decompress(path.read_bytes()), type=Recorded)


class UnknownCall(Exception):
    """A file was changed in a way that this recorder does not know, or not as strace says it."""


class NoRecorder(Exception):
    """strace is not there, or may not trace."""


def check_recorder() -> None:
    """Raises `NoRecorder`, which says what is missing."""
    strace = shutil.which("strace")
    if strace is None:
        raise NoRecorder("strace is not installed: crash images are made of what it records (apt-get install strace)")
    tried = subprocess.run([strace, "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise NoRecorder(f"strace may not trace here (a container without ptrace?): {tried.stderr.strip()}")


def record(module: str, arguments: Sequence[object], into: Path) -> None:
    """Run a module with these arguments under strace, which writes `into`. Raises `NoRecorder` and `RuntimeError`."""
    check_recorder()
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-xx", "-s", str(STRING_BYTES_MAX), "-o", str(into)]
    command += ["-e", "trace=" + ",".join(f"?{call}" for call in CHANGING), "-e", "signal=none"]
    command += [sys.executable, "-B", "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    if done.returncode:
        raise RuntimeError(f"the workload failed under strace ({done.returncode}): {done.stderr[-2_000:]}")


_CALL = re.compile(r"(\d+) +(\w+)\((.*)$", re.DOTALL)
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_ENDED = re.compile(r"^(.*)\) += (-?\d+|0x[0-9a-f]+|\?)(.*)$", re.DOTALL)


@dataclass(slots=True)
class _Begun:
    call: str
    arguments: str
    covers: int = 0


class Recording:
    """The calls of one strace file, as `Op`s on the files below `root`; what stood there before has numbers already."""

    def __init__(self, root: Path, marks: Path, *, names: dict[tuple[str, str], int] | None = None) -> None:
        self._root = str(root) + "/"
        self._marks = str(marks)
        self.names: dict[tuple[str, str], int] = dict(names or {})  # as they are at the end of what was read
        self.of_file: dict[int, str] = {number: name for (_, name), number in self.names.items()}
        self._open: dict[int, int | str] = {}  # by descriptor: a file, a folder, or "marks"
        self._at: dict[int, int] = {}  # by descriptor: where the next plain write goes
        self._begun: dict[str, _Begun] = {}
        self._changes: dict[int | str, int] = {}  # how many there were, by file and folder

    def ops(self, path: Path) -> Iterator[Op]:
        with path.open("r", encoding="ascii", errors="strict") as lines:
            for line in lines:
                yield from self._line(line.rstrip("\n"))

    def _line(self, line: str) -> Iterator[Op]:
        resumed = _RESUMED.match(line)
        if resumed:
            thread, call, rest = resumed.groups()
            begun = self._begun.pop(thread)
            begun.arguments += rest
            yield from self._end(begun)
            return
        found = _CALL.match(line)
        if found is None:
            return  # of a thread's or the process's end
        thread, call, arguments = found.groups()
        unfinished = arguments.endswith(" <unfinished ...>")
        begun = _Begun(call, arguments.removesuffix(" <unfinished ...>") if unfinished else arguments)
        yield from self._begin(begun)
        if unfinished:
            self._begun[thread] = begun
        else:
            yield from self._end(begun)

    def _begin(self, begun: _Begun) -> Iterator[Op]:
        """What counts from the moment at which a call begins: which changes a sync covers, and marks."""
        if begun.call in ("fsync", "fdatasync"):
            about = self._open.get(_descriptor(begun.arguments))
            begun.covers = 0 if about is None else self._changes.get(about, 0)
        elif begun.call == "write" and self._open.get(_descriptor(begun.arguments)) == "marks":
            yield Mark(json.loads(_strings(begun.arguments)[0]))

    def _end(self, begun: _Begun) -> Iterator[Op]:
        ended = _ENDED.match(begun.arguments)
        if ended is None:
            raise UnknownCall(f"{begun.call}({begun.arguments[:200]}")
        arguments, result, _ = ended.groups()
        if result == "?" or result.startswith("-"):
            return
        if begun.call in ("open", "openat", "creat", "openat2"):
            yield from self._opened(begun.call, arguments, int(result))
        elif begun.call in ("mkdir", "mkdirat"):
            place = self._place(_strings(arguments)[0].decode())
            if place is not None:
                yield self._new(place, is_folder=True)
        elif begun.call in ("unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat"):
            yield from self._renamed(begun.call, arguments)
        else:
            yield from self._changed(begun, arguments, result)

    def _opened(self, call: str, arguments: str, descriptor: int) -> Iterator[Op]:
        self._open.pop(descriptor, None)
        self._at.pop(descriptor, None)
        if "O_WRONLY" in arguments:  # nothing is read through it, which would move it
            self._at[descriptor] = 0
        path = self._whole(arguments)
        if path == self._marks:
            self._open[descriptor] = "marks"
        if call == "openat2" and self._place(path):
            raise UnknownCall(f"{call} of {path}")
        place = self._place(path)
        if place is None:
            return
        file = self.names.get(place)
        if file is None and "O_CREAT" not in arguments:
            self._open[descriptor] = "/".join(filter(None, place))  # a folder: all files are known by name
            return
        if file is None:
            yield self._new(place)
            file = self.names[place]
        self._open[descriptor] = file
        if "O_APPEND" in arguments:
            raise UnknownCall(f"{path} is opened to be appended to")
        if "O_TRUNC" in arguments:
            yield self._count(Size(file, 0))

    def _whole(self, arguments: str) -> str:
        """The path of an open, which may begin at a folder that is open."""
        path = _strings(arguments)[0].decode()
        folder = self._open.get(_descriptor(arguments))
        if isinstance(folder, str) and not path.startswith("/"):
            return self._root + "/".join(filter(None, (folder, path)))
        return path

    def _new(self, place: tuple[str, str], *, is_folder: bool = False) -> Name:
        file = len(self.of_file) + 1
        self.of_file[file] = place[1]
        return self._name(place, file, is_folder=is_folder)

    def _place(self, path: str) -> tuple[str, str] | None:
        """Folder and name below the root, of what is not left out; the root itself is ("", "")."""
        if path + "/" == self._root:
            return ("", "")
        if not path.startswith(self._root) or any(part in path.removeprefix(self._root) for part in LEFT_OUT):
            return None
        folder, _, name = path.removeprefix(self._root).rpartition("/")
        return (folder, name)

    def _name(self, place: tuple[str, str], file: int | None, *, is_folder: bool = False) -> Name:
        folder, name = place
        if file is None:
            self.names.pop(place, None)
        elif not is_folder:
            self.names[place] = file
        self._changes[folder] = self._changes.get(folder, 0) + 1
        return Name(folder, name, file, is_folder)

    def _count(self, op: Write | Size) -> Write | Size:
        self._changes[op.file] = self._changes.get(op.file, 0) + 1
        return op

    def _renamed(self, call: str, arguments: str) -> Iterator[Op]:
        places = [place for path in _strings(arguments) if (place := self._place(path.decode())) is not None]
        if not places:
            return
        if places[0] not in self.names or not arguments.startswith(('"', "AT_FDCWD")):
            raise UnknownCall(f"{call}({arguments})")
        match call, places:
            case "unlink" | "unlinkat", [place]:
                yield self._name(place, None)
            case "rename" | "renameat" | "renameat2", [place, to]:
                yield self._name(to, self.names[place])
                yield self._name(place, None)
            case _:
                raise UnknownCall(f"{call}({arguments})")

    def _changed(self, begun: _Begun, arguments: str, result: str) -> Iterator[Op]:
        if begun.call == "mmap":
            parts = arguments.split(", ")
            if "PROT_WRITE" not in parts[2] or "MAP_SHARED" not in parts[3] or "MAP_ANONYMOUS" in parts[3]:
                return
            about = self._open.get(int(parts[4]))
        else:
            about = self._open.get(_descriptor(arguments))
        if about is None or about == "marks":
            return
        match begun.call, about:
            case "fsync" | "fdatasync", str(folder):
                yield DirectorySync(folder, begun.covers)
            case "fsync" | "fdatasync", int(file):
                yield Sync(file, begun.covers)
            case "lseek", _:
                if _descriptor(arguments) in self._at:
                    self._at[_descriptor(arguments)] = int(result)
            case "write" | "pwrite64", int(file):
                data, offset = _strings(arguments)[0], int(arguments.rpartition(", ")[2])
                if begun.call == "write":
                    descriptor = _descriptor(arguments)
                    if descriptor not in self._at:
                        raise UnknownCall(f"write to {self.of_file[file]}, nobody knows where")
                    offset = self._at[descriptor]
                    self._at[descriptor] += int(result)
                if len(data) < int(result):
                    raise UnknownCall("strace has cut what was written")
                yield self._count(Write(file, offset, data[: int(result)]))
            case "ftruncate", int(file):
                yield self._count(Size(file, int(arguments.rpartition(", ")[2])))
            case _:
                raise UnknownCall(f"{begun.call}({arguments[:200]}")


def _descriptor(arguments: str) -> int:
    found = re.match(r"-?\d+", arguments)
    return -1 if found is None else int(found[0])


def _strings(arguments: str) -> list[bytes]:
    return [bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', arguments)]
