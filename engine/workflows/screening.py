"""The check of workflow code: what would be different at a replay is found before any run, with file and line.

`screen` reads the source of a workflow, of the functions nested in it, and of the plain functions of the same module
that these name, and so on. Names are looked up where the function would look them up, so an alias hides nothing.
`refuse` raises what was found in several workflows as one `DeterminismError`.

A line is let through by `# deterministic: reason` on any line of its statement. Code whose source cannot be had (typed
at a prompt, made by `exec`) is not checked. What is not seen either: other modules, methods of objects, what is reached
through variables that are bound twice. The guard that runs beside the code (`engine.runtime.guard`) sees I/O there too.
"""

from __future__ import annotations

import ast
import io
import linecache
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import FunctionType
from typing import Any, Final

from msgspec import Struct

from engine.core.call import Definition
from engine.errors import DeterminismError
from engine.workflows.impure import instead_of
from engine.workflows.naming import FunctionNode, Named, Names, plain_function
from engine.workflows.sets import unordered_use

__all__ = ["Finding", "refuse", "screen"]

MARK: Final = "deterministic:"
"""What a comment says, with a reason behind it, on a line that may stay as it is."""
SOURCES_MAX: Final = 32
"""Files whose syntax trees are kept: every engine that a process opens checks its workflows again."""

_MARKED: Final = re.compile(r"#\s*deterministic:(.*)$")
_SHOWN: Final = 60  # characters of what was found
_ORDER: Final = "a list, a tuple or dict.fromkeys(...), or sorted(...): a set has another order in every process"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing in workflow code that a replay would not find the same."""

    workflow: str
    file: str
    line: int
    found: str  # as it stands there
    instead: str  # what to write

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.found} in workflow {self.workflow!r}: write {self.instead}"


def refuse(definitions: Iterable[Definition[..., Any]]) -> None:
    """Raise `DeterminismError` with everything that was found in these workflows; return if that is nothing."""
    found: dict[tuple[str, int, str], Finding] = {}
    for definition in definitions:
        for each in screen(definition):
            found.setdefault((each.file, each.line, each.found), each)  # a function that two workflows share, once
    if found:
        findings = tuple(found.values())
        raise DeterminismError(
            "workflow code is replayed from its history, and must do the same again:\n"
            + "\n".join(f"  {each}" for each in findings)
            + f"\nWhere a line is right as it stands, end it with `# {MARK} <reason>`.",
            findings=findings,
        )


def screen(definition: Definition[..., Any]) -> tuple[Finding, ...]:
    """What in a workflow's code would be different at a replay, in the order of the lines of each function.

    Never raises: what cannot be read is not checked. Made once for a definition.
    """
    kept: tuple[Finding, ...] | None = vars(definition).get("_findings")
    if kept is None:
        kept = tuple(_screen(definition))
        vars(definition)["_findings"] = kept
    return kept


def _screen(definition: Definition[..., Any]) -> Iterator[Finding]:
    root = plain_function(definition.fn)
    pending = [] if root is None else [root]
    seen = set(pending)
    for function in pending:  # grows while it is gone through
        source = _source_of(function)
        node = None if source is None else source.node_of(function)
        if source is None or node is None:
            continue
        reader = _Reader(function, source)
        reader.read(node)
        file = function.__code__.co_filename
        for line, found, instead in sorted(reader.found):
            yield Finding(workflow=definition.name, file=file, line=line, found=found, instead=instead)
        for other in reader.named:
            if other not in seen and other.__globals__ is function.__globals__:
                seen.add(other)
                pending.append(other)


# -- sources ----------------------------------------------------------------------------------------------------------


class _Source:
    """One file: its functions by first line, and the reasons on its lines."""

    def __init__(self, text: str) -> None:
        self.functions: dict[tuple[int, str], list[FunctionNode]] = {}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                self.functions.setdefault((first, node.name), []).append(node)
            elif isinstance(node, ast.Lambda):
                self.functions.setdefault((node.lineno, "<lambda>"), []).append(node)
        self.reasons = dict(_reasons(text))

    def node_of(self, function: FunctionType) -> FunctionNode | None:
        """The syntax of a function; None where the text is not that which it was made from."""
        code = function.__code__
        nodes = self.functions.get((code.co_firstlineno, code.co_name), [])
        return nodes[0] if len(nodes) == 1 else None  # two lambdas on one line cannot be told apart


def _reasons(text: str) -> Iterator[tuple[int, str]]:
    if MARK not in text:
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and (marked := _MARKED.search(token.string)):
            yield token.start[0], marked[1].strip()


def _source_of(function: FunctionType) -> _Source | None:
    file = function.__code__.co_filename
    linecache.checkcache(file)  # it may have been edited, and its module loaded again
    lines = linecache.getlines(file, function.__globals__)
    return _parsed("".join(lines)) if lines else None


@lru_cache(maxsize=SOURCES_MAX)
def _parsed(text: str) -> _Source | None:
    try:
        return _Source(text)
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError):
        return None  # no Python of this version, or not the file that the code was made from


# -- reading ----------------------------------------------------------------------------------------------------------

_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class _Reader(ast.NodeVisitor):
    """Walks one function. `found`: line, what, instead. `named`: the functions that it names."""

    def __init__(self, function: FunctionType, source: _Source) -> None:
        self.found: set[tuple[int, str, str]] = set()
        self.named: dict[FunctionType, None] = {}
        self._names = Names(function)
        self._reasons: Mapping[int, str] = source.reasons
        self._lines = range(0)  # of the statement that is read

    def read(self, node: FunctionNode) -> None:
        """The function as it runs: its defaults and decorators were evaluated when it was defined."""
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            if self._reasons.get(line) == "":
                self.found.add((line, f"`# {MARK}` without a reason", f"`# {MARK} <why a replay does the same>`"))
        self._body_of(node)

    def _body_of(self, node: FunctionNode) -> None:
        self._names.enter(node)
        for each in node.body if not isinstance(node, ast.Lambda) else [node.body]:
            self.visit(each)
        self._names.leave()

    def _report(self, node: ast.expr, instead: str) -> None:
        lines = {*self._lines, *range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        if not any(self._reasons.get(line) for line in lines):
            self.found.add((node.lineno, f"`{_short(node)}`", instead))

    # Statements: which lines a mark may stand on.

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            before, self._lines = self._lines, _lines_of(node)
            super().visit(node)
            self._lines = before
        else:
            super().visit(node)

    # Scopes.

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for each in (*node.decorator_list, *_defaults(node.args)):
            self.visit(each)
        if not any(self._makes_a_task(each) for each in node.decorator_list):
            self._body_of(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the visitor's name for it

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for each in _defaults(node.args):
            self.visit(each)
        self._body_of(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for each in (*node.decorator_list, *node.bases, *node.keywords, *node.body):
            self.visit(each)

    def _makes_a_task(self, decorator: ast.expr) -> bool:
        named = self._names.of(decorator.func if isinstance(decorator, ast.Call) else decorator)
        return named is not None and named.path == "engine.tasks.definition.task"

    def _comprehension(self, node: Any) -> None:
        self.visit(node.generators[0].iter)  # evaluated outside
        self._names.enter(node)
        for index, each in enumerate(node.generators):
            for part in (*([each.iter] if index else []), *each.ifs):
                self.visit(part)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self._names.leave()

    # Expressions.

    def generic_visit(self, node: ast.AST) -> None:
        if (used := unordered_use(node, self._names)) is not None:
            self._report(used, _ORDER)
        if isinstance(node, _COMPREHENSIONS):
            self._comprehension(node)
        else:
            super().generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        named = self._names.of(node.func)
        counted = any(isinstance(each, ast.Starred) for each in node.args) or any(
            each.arg is None for each in node.keywords
        )
        arguments = len(node.args) + len(node.keywords) + (2 if counted else 0)
        if named is not None and not named.is_error and (instead := instead_of(named.path, arguments)) is not None:
            self._report(node, instead)
            for each in (*node.args, *node.keywords):
                self.visit(each)
        else:
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        named = self._names.of(node)
        if named is not None and self._judge(node, named):
            return
        if named is None or not _is_plain(node):
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and (named := self._names.of(node)) is not None:
            self._judge(node, named)

    def _judge(self, node: ast.expr, named: Named) -> bool:
        instead = instead_of(named.path, None, acts=named.acts)
        if instead is not None:
            self._report(node, instead)
        elif (function := plain_function(named.value)) is not None:
            self.named[function] = None
        return instead is not None


def _lines_of(node: ast.stmt) -> range:
    """The lines of a statement; of one that holds others, those of its head."""
    end = node.end_lineno or node.lineno
    body: list[ast.stmt] | None = getattr(node, "body", None) or getattr(node, "cases", None)
    if body:
        head = body[0] if isinstance(body[0], ast.stmt) else body[0].pattern
        end = max(node.lineno, min(end, head.lineno - 1))
    return range(node.lineno, end + 1)


def _defaults(arguments: ast.arguments) -> Iterator[ast.expr]:
    yield from arguments.defaults
    yield from (each for each in arguments.kw_defaults if each is not None)


def _is_plain(node: ast.expr) -> bool:
    """Whether it is names and dots only: then nothing in it is called."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
