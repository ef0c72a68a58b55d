"""What a store must hold, from what was asked of it and what it answered up to a moment: the marks of the workload.

Of each stream it is known which commits were asked, in order, what each brings with it, which were answered and with which
digest, and which were refused. Whatever is found in an image must be the work of a beginning of them that holds every one
that was answered: see `check`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Asked:
    """A commit, or an installation, and what comes with it."""

    number: int
    parts: dict[str, tuple[int, int]]  # by stream: the version before, and how many events
    sends: list[tuple[str, str]] = field(default_factory=list)
    consumes: list[str] = field(default_factory=list)
    own: bool = False
    alarm: int | None = None
    permits: list[tuple[str, str]] = field(default_factory=list)
    installed: bool = False


@dataclass(slots=True)
class Journal:
    """Marks, taken in one by one. It can be written as JSON and read again: it is the list of its marks."""

    seed: int
    lenient: bool = False  # what was answered may be lost (`synchronous=NORMAL`): only that all is whole is held
    marks: list[dict[str, Any]] = field(default_factory=list)
    opened: bool = False  # some opening was answered
    made: bool = False  # the same, though it promises nothing
    under_way: str = ""  # "open" or "close", until it is answered: nothing else happens meanwhile
    asked: dict[str, list[Asked]] = field(default_factory=dict)  # by stream, in order, without those refused
    heads: dict[str, dict[int, str]] = field(default_factory=dict)  # answered: digests by stream and version
    sent: dict[tuple[str, str], bool] = field(default_factory=dict)  # by stream and id: whether answered
    forgotten: dict[str, bool] = field(default_factory=dict)
    pruned: dict[str, tuple[int, bool]] = field(default_factory=dict)  # up to which version
    leases: dict[int, bool] = field(default_factory=dict)  # by token: whether its end was answered
    deeds: list[dict[str, Any]] = field(default_factory=list)  # other marks: what an engine has done (`engine_check`)
    answered: int = 0
    _numbers: dict[int, dict[str, Any]] = field(default_factory=dict)

    def take(self, mark: dict[str, Any]) -> None:
        """One more mark."""
        self.marks.append(mark)
        if "do" in mark:
            self._numbers[mark["do"]] = mark
            self._ask(mark)
        elif "done" in mark:
            self.answered += 1
            self._answer(self._numbers[mark["done"]], mark)
        elif "refused" in mark:
            self._drop(self._numbers[mark["refused"]]["do"])
        elif "ended" in mark:
            self.leases |= {} if self.lenient else {mark["ended"]: True}
        elif "seen" in mark:
            self._see(mark["seen"])
        else:
            self.deeds.append(mark)
            self.answered += 1

    def _ask(self, mark: dict[str, Any]) -> None:
        match mark["kind"]:
            case "open" | "close":
                self.under_way = mark["kind"]
            case "commit" | "install":
                asked = _asked(mark)
                for stream in asked.parts:
                    self.asked.setdefault(stream, []).append(asked)
            case "send":
                self.sent[mark["to"], f"m{mark['do']}"] = False
            case "forget":
                self.forgotten[mark["stream"]] = False
            case "prune":
                self.pruned[mark["stream"]] = (mark["until"], False)

    def _answer(self, asked: dict[str, Any], mark: dict[str, Any]) -> None:
        if asked["kind"] in ("open", "close"):
            self.opened, self.made, self.under_way = not self.lenient, True, ""
        if self.lenient:
            return
        match asked["kind"]:
            case "commit" | "install":
                for stream, (version, digest) in mark["heads"].items():
                    self.heads.setdefault(stream, {})[version] = digest
            case "send":
                self.sent[asked["to"], f"m{asked['do']}"] = True
            case "forget":
                self.forgotten[asked["stream"]] = True
            case "prune":
                self.pruned[asked["stream"]] = (asked["until"], True)
            case "lease":
                self.leases[mark["token"]] = False

    def _drop(self, number: int) -> None:
        for stream, asked in self.asked.items():
            self.asked[stream] = [each for each in asked if each.number != number]

    def _see(self, versions: dict[str, int]) -> None:
        """A store that was opened after a cut found this: it must stay, and what is not in it never comes."""
        self.opened = not self.lenient
        for stream, asked in self.asked.items():
            self.asked[stream] = [each for each in asked if sum(each.parts[stream]) <= versions.get(stream, -1)]
            if self.asked[stream]:
                self.heads.setdefault(stream, {}).setdefault(versions[stream], "")


def _asked(mark: dict[str, Any]) -> Asked:
    number = mark["do"]
    return Asked(
        number,
        {stream: (first, count) for stream, first, count in mark["parts"]},
        sends=[(to.format(number), message.format(number)) for to, message in mark.get("sends", ())],
        consumes=mark.get("consumes", []),
        own=mark.get("own", False),
        alarm=mark.get("alarm"),
        permits=[(action, holder) for action, holder in mark.get("permits", ())],
        installed=mark["kind"] == "install",
    )


def replay(seed: int, marks: list[dict[str, Any]], *, lenient: bool = False) -> Journal:
    journal = Journal(seed, lenient)
    for mark in marks:
        journal.take(mark)
    return journal
