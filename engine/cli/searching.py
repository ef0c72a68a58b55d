"""Many runs at once: found by workflow and status, shown first, and only then dealt with, one by one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import typer
from msgspec import Struct

from engine import Engine, RunStatus, RunSummary
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.tables import runs_table
from engine.errors import HoldfastError

__all__ = ["Many", "deal_with", "many_of"]


class Many(Struct, frozen=True):
    """Which runs are meant. `yes`: it is to be done, and not only shown."""

    workflow: str
    statuses: tuple[RunStatus, ...]
    limit: int
    yes: bool

    @property
    def words(self) -> str:
        """What they are."""
        return f"{' or '.join(self.statuses)} runs of {self.workflow}"


def many_of(
    run_id: str | None,
    workflow: str | None,
    statuses: tuple[RunStatus, ...],
    usual: tuple[RunStatus, ...],
    *,
    limit: int,
    yes: bool,
) -> Many | None:
    """What was said of many runs; None when one was named. Raises `typer.BadParameter` for neither, and for both."""
    if run_id is not None and (workflow is not None or statuses or yes):
        raise typer.BadParameter("name a run, or many with --workflow, --status and --yes; not both", param_hint="RUN")
    if run_id is not None:
        return None
    if not workflow:
        raise typer.BadParameter("name a run, or many with --workflow NAME (and --status)", param_hint="RUN")
    return Many(workflow, statuses or usual, limit, yes)


async def find(client: Engine, many: Many) -> tuple[list[RunSummary], bool]:
    """The newest runs that are meant, and whether there are more."""
    found: list[RunSummary] = []
    cursor: str | None = None
    while len(found) < many.limit:
        page = await client.runs(
            workflow=many.workflow, status=many.statuses, limit=min(100, many.limit - len(found)), cursor=cursor
        )
        found += page.items
        cursor = page.next
        if cursor is None:
            break
    return found, cursor is not None


async def deal_with(
    client: Engine, output: Output, many: Many, verb: str, do: Callable[[str], Awaitable[str]], *, then: str
) -> Exit:
    """Show the runs that are meant; with `--yes` do it to each, and say what became of that: `do` returns the words.

    `then`: what is to be said behind that. One that is refused stops none of the others.
    """
    found, more = await find(client, many)
    rows: list[dict[str, object]] = []
    refused = 0
    if not many.yes:
        rows = [{"run": each.id, "status": each.status} for each in found]
    for each in found if many.yes else ():
        try:
            said, ok = await do(each.id), True
        except HoldfastError as error:
            said, ok = str(error), False
            refused += 1
        rows.append({"run": each.id, "done": ok, "message": said})
        if not output.json:
            output.line(said if ok else f"{each.id} is left as it is: {said}")
    if output.json:
        output.document({"verb": verb, "done": many.yes, "more": more, "runs": rows})
    elif not found:
        output.line(f"there are no {many.words} in this store")
    elif not many.yes:
        output.show(runs_table(found))
        output.line(f"nothing is done yet; with --yes {verb} these {len(found):,} {many.words}")
    elif then:
        output.line(then)
    if more and not output.json:
        output.line(f"… and there are more; --limit {many.limit * 5} takes them in")
    return Exit.REFUSED if refused else Exit.COMPLETED
