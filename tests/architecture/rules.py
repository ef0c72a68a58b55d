"""The rules of the house. Each takes the modules and yields what breaks it, as ``module:line: what, and what to do``.

A rule sees all modules at once and reads only their source, so that a planted module is judged exactly as a real one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping

from tests.architecture import table
from tests.architecture.source import DYNAMIC, Import, Module, called, room_of, within, words_of

Modules = Mapping[str, Module]
Rule = Callable[[Modules], Iterator[str]]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_CLOCK_READERS = frozenset(
    """
    datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today anyio.current_time
    """.split()
)
_CONTAINERS = frozenset(
    """
    list dict set bytearray defaultdict deque OrderedDict Counter ChainMap WeakSet WeakValueDictionary
    WeakKeyDictionary
    """.split()
)
_MUTATORS = frozenset(
    """
    append extend insert add update setdefault pop popitem popleft appendleft remove discard clear sort reverse
    """.split()
)


def _targets(use: Import, modules: Modules) -> str:
    """The module an import reaches: ``from engine import runtime`` reaches engine.runtime, not the face."""
    return use.full if use.name is not None and (use.full in modules or use.full in table.FLOORS) else use.module


def _ours(use: Import) -> bool:
    return use.top in table.PACKAGES


# ------------------------------------------------------------------------------------------------ floors


def every_module_has_a_room(modules: Modules) -> Iterator[str]:
    for name in modules:
        if name != table.FACE and room_of(name) is None:
            yield f"{name}: stands in no room; give it one, or add its room to a floor in tests/architecture/table.py"


def imports_go_down(modules: Modules) -> Iterator[str]:
    """Down only; rooms on one floor do not import each other; the face imports no higher than the shell."""
    for name, module in modules.items():
        own = room_of(name)
        if name != table.FACE and own is None:
            continue
        floor = table.SHELL if own is None else table.FLOORS[own]
        for use in filter(_ours, module.imports):
            target = _targets(use, modules)
            if target == table.FACE:
                if name != table.FACE and floor <= table.SHELL:
                    yield f"{name}:{use.line}: imports the face `engine` from inside the house; import the room"
                continue
            other = room_of(target)
            if other is None or other == own:
                continue  # a module without a room is reported by the rule above
            if own is None and table.FLOORS[other] <= table.SHELL:
                continue
            if table.FLOORS[other] >= floor:
                yield f"{name}:{use.line}: floor {floor} imports {target} on floor {table.FLOORS[other]}; imports go down only"


def deciding_and_remembering_do_not_meet(modules: Modules) -> Iterator[str]:
    """eventstore knows nothing of engine (also not its errors); only the runtime knows both it and engine.core."""
    for name, module in modules.items():
        if within(name, "eventstore"):
            for use in module.imports:
                if use.top == "engine":
                    yield f"{name}:{use.line}: eventstore imports {use.full}; the store knows nothing of the engine"
        elif name != table.FACE and not within(name, table.JOINS):
            used = [_targets(use, modules) for use in module.imports if _ours(use)]
            if any(within(each, "engine.core") for each in used) and any(within(each, "eventstore") for each in used):
                yield f"{name}: knows engine.core and eventstore; only {table.JOINS} joins deciding and remembering"


def upper_floors_use_what_a_user_can_import(modules: Modules) -> Iterator[str]:
    """Above the shell: `from public_module import name in its __all__`, or the own room; nothing else of ours."""
    for name, module in modules.items():
        own = room_of(name)
        if own is None or table.FLOORS[own] <= table.SHELL:
            continue
        for use in filter(_ours, module.imports):
            where = f"{name}:{use.line}"
            if within(use.module, own) or within(_targets(use, modules), own):
                continue
            if use.name is None:
                yield f"{where}: `import {use.module}` reaches everything; say `from {use.top} import name`"
            elif use.module not in table.PUBLIC:
                yield f"{where}: imports {use.full}, which is no public module; export what is needed"
            elif use.full not in table.PUBLIC and not _exports(modules.get(use.module), use.name):
                yield f"{where}: imports {use.name}, which {use.module}.__all__ does not export"


def _exports(module: Module | None, name: str) -> bool:
    return module is not None and module.exported is not None and name in module.exported


def public_modules_say_what_they_export(modules: Modules) -> Iterator[str]:
    for name in table.PUBLIC:
        if name in modules and modules[name].exported is None:
            yield f"{name}: is public and has no plainly written __all__"


# ------------------------------------------------------------------------------------------------ purity and clocks


def the_core_is_pure(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        if not any(within(name, pure) for pure in table.PURE):
            continue
        for use in module.imports:
            if use.top in table.IMPURE_MODULES and use.full not in table.PURE_NAMES:
                yield f"{name}:{use.line}: the pure core imports {use.full}"
            elif use.module == "asyncio" and use.name in table.IMPURE_ASYNCIO:
                yield f"{name}:{use.line}: the pure core imports asyncio.{use.name}"
        for node in module.nodes:
            if isinstance(node, ast.Call):
                yield from _impure_call(name, module, node)


def _impure_call(name: str, module: Module, node: ast.Call) -> Iterator[str]:
    path = module.resolved(node.func)
    if isinstance(node.func, ast.Name) and node.func.id in table.IMPURE_CALLS and path is None:
        yield f"{name}:{node.lineno}: the pure core calls {node.func.id}()"
    if path is not None and path.startswith("asyncio.") and path.rpartition(".")[2] in table.IMPURE_ASYNCIO:
        yield f"{name}:{node.lineno}: the pure core calls {path}()"
    if path == "random.Random" and not node.args:
        yield f"{name}:{node.lineno}: Random() without a seed is chance; take the seed from the history"
    if path is not None and (path.startswith("sys.std") or path == "sys.exit"):
        yield f"{name}:{node.lineno}: the pure core calls {path}()"


def one_module_reads_the_clock(modules: Modules) -> Iterator[str]:
    """Also when only named, not called: a default argument `clock=time.time` reads it later."""
    for name, module in modules.items():
        if name == table.CLOCK:
            continue
        for node in module.nodes:
            if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
                path = module.resolved(node)
                if path is not None and (path in _CLOCK_READERS or _reads_time(path)):
                    yield f"{name}:{node.lineno}: {path} reads a clock; only {table.CLOCK} does, take a Clock"


def _reads_time(path: str) -> bool:
    head, _, rest = path.partition(".")
    return head == "time" and rest not in {"", "sleep", "struct_time"}


def nobody_reads_the_environment(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        for use in module.imports:
            if use.full in {"os.environ", "os.getenv", "os.environb", "os.getenvb"}:
                yield f"{name}:{use.line}: reads the environment; settings are arguments"
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and module.resolved(node) in {
                "os.environ",
                "os.getenv",
                "os.environb",
                "os.getenvb",
            }:
                yield f"{name}:{node.lineno}: reads the environment; settings are arguments"


# ------------------------------------------------------------------------------------------------ state and names


def modules_hold_no_state(modules: Modules) -> Iterator[str]:
    """No `global`; no lower-case container at module level unless Final; none, whatever its name, that functions change."""
    for name, module in modules.items():
        for line, variable, what in _state(module):
            if f"{name}:{variable}" not in table.MODULE_STATE:
                yield f"{name}:{line}: module state `{variable}` {what}; let an object hold it that somebody owns"


def _state(module: Module) -> Iterator[tuple[int, str, str]]:
    containers: dict[str, int] = {}
    for node, target, value, final in _module_assignments(module.tree.body):
        if target == "__all__" or not _is_container(value):
            continue
        containers[target] = node.lineno
        if target != target.upper() and not final:
            yield node.lineno, target, "is a mutable container that is not Final"
    for node in module.nodes:
        if isinstance(node, ast.Global):
            yield from ((node.lineno, each, "is rebound with `global`") for each in node.names)
        if isinstance(node, _FUNCTIONS):
            yield from _changes(node, containers)


def _module_assignments(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str, ast.expr, bool]]:
    for node in body:
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((node, each.id, value, False) for each in targets if isinstance(each, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value, annotation=annotation):
                yield node, target, value, "Final" in ast.unparse(annotation)
            case ast.If(body=inner, orelse=other) | ast.Try(body=inner, orelse=other):
                yield from _module_assignments([*inner, *other])
            case ast.With(body=inner):
                yield from _module_assignments(inner)


def _is_container(value: ast.expr) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(value, ast.Call) and (called(value.func) or "").rpartition(".")[2] in _CONTAINERS


def _changes(
    function: ast.FunctionDef | ast.AsyncFunctionDef, containers: Mapping[str, int]
) -> Iterator[tuple[int, str, str]]:
    own = {each.arg for each in ast.walk(function) if isinstance(each, ast.arg)}
    own |= {each.id for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=target), attr=attr)) if attr in _MUTATORS:
                pass
            case ast.Subscript(value=ast.Name(id=target), ctx=ast.Store() | ast.Del()):
                pass
            case _:
                continue
        if target in containers and target not in own:
            yield node.lineno, target, f"is changed by {function.name}()"


def names_say_something(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        for part in name.split("."):
            if part in table.NOT_A_NAME:
                yield f"{name}: a module called {part} says nothing; name it for what it is"
            yield from (f"{name}: {said}" for said in _wrong_words(part))
        for node in module.nodes:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from (f"{name}:{node.lineno}: {said}" for said in _wrong_words(node.name))


def _wrong_words(name: str) -> Iterator[str]:
    for word in words_of(name):
        if word in table.WRONG_WORDS:
            yield f"`{name}` says {word!r}; here it is: {table.WRONG_WORDS[word]}"


# ------------------------------------------------------------------------------------------------ sizes and forms


def _lines(module: Module) -> int:
    return len(module.text.splitlines())


def modules_are_small(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        count = _lines(module)
        if count > table.MODULE_LINES_STOP:
            yield f"{name}: {count} lines, the hard stop is {table.MODULE_LINES_STOP}; split it"
        elif count > table.MODULE_LINES and name not in table.LONG_MODULES:
            yield f"{name}: {count} lines, more than {table.MODULE_LINES}; split it, or say why not in LONG_MODULES"


def functions_are_short(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        for node in module.nodes:
            if isinstance(node, _FUNCTIONS):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > table.FUNCTION_LINES:
                    yield f"{name}:{node.lineno}: {node.name}() has {count} lines, more than {table.FUNCTION_LINES}"


def classes_are_small(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                count = _methods(node)
                if count > table.CLASS_METHODS and f"{name}:{node.name}" not in table.MANY_METHODS:
                    yield f"{name}:{node.lineno}: {node.name} has {count} methods, more than {table.CLASS_METHODS}"


def _methods(node: ast.ClassDef) -> int:
    return len({each.name for each in node.body if isinstance(each, _FUNCTIONS)})  # by name: overloads are one


def modules_open_with_what_they_are(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        if not ast.get_docstring(module.tree):
            yield f"{name}: no docstring; say what it is, what it promises, what it deliberately does not know"


def annotations_are_lazy(modules: Modules) -> Iterator[str]:
    """`from __future__ import annotations`, wherever there is a function, a class or an annotation."""
    for name, module in modules.items():
        if Import("__future__", "annotations", 0).full in {use.full for use in module.imports}:
            continue
        if any(isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.AnnAssign)) for node in module.nodes):
            yield f"{name}: `from __future__ import annotations` is missing"


# ------------------------------------------------------------------------------------------------ other people's code


def dependencies_stay_in_their_rooms(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        for use in module.imports:
            top = use.top
            if top in table.FORBIDDEN_MODULES:
                yield f"{name}:{use.line}: imports {top}; no pickle, anywhere"
            elif top in table.DEPENDENCIES:
                rooms = table.DEPENDENCIES[top]
                if not any(within(name, room) for room in rooms):
                    yield f"{name}:{use.line}: imports {top}, which is for {', '.join(rooms)} only"
            elif top not in sys.stdlib_module_names and top not in table.PACKAGES:
                yield f"{name}:{use.line}: imports {top}, which is no dependency (tests/architecture/table.py)"


def nothing_is_run_from_text(modules: Modules) -> Iterator[str]:
    """No text and no bytes become code: not by eval, exec or compile, and by no library that does it."""
    for name, module in modules.items():
        for node in module.nodes:
            if not isinstance(node, ast.Call):
                continue
            path = module.resolved(node.func)
            if path is None and isinstance(node.func, ast.Name) and node.func.id in table.RUNS_TEXT:
                yield f"{name}:{node.lineno}: calls {node.func.id}(): nothing is run from text"
            elif path is not None and (
                path.removeprefix("builtins.") in table.RUNS_TEXT or path in table.RUNS_TEXT_PATHS
            ):
                yield f"{name}:{node.lineno}: calls {path}(): nothing is run from text"


def imports_are_plain(modules: Modules) -> Iterator[str]:
    """What is imported can be read: no stars, and computed names only where the table says why."""
    for name, module in modules.items():
        for use in module.imports:
            if use.name == "*":
                yield f"{name}:{use.line}: `from {use.module} import *` hides what is used"
        if any(within(name, room) for room in table.DYNAMIC_IMPORTS):
            continue
        for node in module.nodes:
            if isinstance(node, ast.Call) and called(node.func) in DYNAMIC:
                if not (node.args and isinstance(node.args[0], ast.Constant)):
                    yield f"{name}:{node.lineno}: imports a computed name"


# ------------------------------------------------------------------------------------------------ the tables themselves


def exceptions_are_needed(modules: Modules) -> Iterator[str]:
    """A reason that no longer has a case is taken out, so that the lists of exceptions only hold what is true."""
    for name in table.LONG_MODULES:
        if name not in modules or _lines(modules[name]) <= table.MODULE_LINES:
            yield f"LONG_MODULES: {name} is not long (any more)"
    for each in table.MANY_METHODS:
        name, _, wanted = each.partition(":")
        classes = [node for node in modules[name].nodes if isinstance(node, ast.ClassDef)] if name in modules else []
        if not any(node.name == wanted and _methods(node) > table.CLASS_METHODS for node in classes):
            yield f"MANY_METHODS: {each} has not many methods (any more)"
    for each in table.MODULE_STATE:
        name, _, variable = each.partition(":")
        if name not in modules or variable not in {found for _, found, _ in _state(modules[name])}:
            yield f"MODULE_STATE: {each} is no module state (any more)"


RULES: tuple[Rule, ...] = (
    every_module_has_a_room,
    imports_go_down,
    deciding_and_remembering_do_not_meet,
    upper_floors_use_what_a_user_can_import,
    public_modules_say_what_they_export,
    the_core_is_pure,
    one_module_reads_the_clock,
    nobody_reads_the_environment,
    modules_hold_no_state,
    names_say_something,
    modules_are_small,
    functions_are_short,
    classes_are_small,
    modules_open_with_what_they_are,
    annotations_are_lazy,
    dependencies_stay_in_their_rooms,
    nothing_is_run_from_text,
    imports_are_plain,
    exceptions_are_needed,
)
