"""What of a loop a workflow may not use (I/O, threads, processes, signals), and what is only settings.

Every method exists, because libraries look for them, and says what to write instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from engine.errors import ForbiddenInWorkflow

__all__ = ["ForbiddenCallbacks", "ForbiddenSurface", "LoopSettings"]


def _forbidden(what: str) -> NoReturn:
    raise ForbiddenInWorkflow(
        f"a workflow cannot {what}: it is replayed from its history, so effects belong into a @task."
        " Move this into an `async def` or `def` decorated with @task and await that"
    )


class ForbiddenSurface(asyncio.AbstractEventLoop):
    """Refuses what only a loop with an outside can do."""

    async def getaddrinfo(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("resolve host names")

    async def getnameinfo(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("resolve host names")

    async def create_connection(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("open a connection")

    async def create_unix_connection(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("open a connection")

    async def create_server(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("listen on a socket")

    async def create_unix_server(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("listen on a socket")

    async def create_datagram_endpoint(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("open a datagram socket")

    async def connect_accepted_socket(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("serve a socket")

    async def start_tls(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("start TLS")

    async def sendfile(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("send a file")

    async def sock_connect(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def sock_accept(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def sock_recv(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def sock_recv_into(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def sock_recvfrom(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def sock_recvfrom_into(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def sock_sendall(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def sock_sendto(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def sock_sendfile(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a socket")

    async def connect_read_pipe(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a pipe")

    async def connect_write_pipe(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("use a pipe")

    async def subprocess_shell(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("start a process")

    async def subprocess_exec(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        _forbidden("start a process")


class ForbiddenCallbacks(asyncio.AbstractEventLoop):
    """Refuses file descriptors, signals, threads, and being run like an ordinary loop."""

    def add_reader(self, *_args: Any) -> NoReturn:  # type: ignore[override]
        _forbidden("watch a file descriptor")

    def remove_reader(self, *_args: Any) -> NoReturn:
        _forbidden("watch a file descriptor")

    def add_writer(self, *_args: Any) -> NoReturn:  # type: ignore[override]
        _forbidden("watch a file descriptor")

    def remove_writer(self, *_args: Any) -> NoReturn:
        _forbidden("watch a file descriptor")

    def add_signal_handler(self, *_args: Any) -> NoReturn:  # type: ignore[override]
        _forbidden("handle signals")

    def remove_signal_handler(self, *_args: Any) -> NoReturn:
        _forbidden("handle signals")

    def run_in_executor(self, *_args: Any) -> NoReturn:  # type: ignore[override]
        _forbidden("run a function in a thread or process (run_in_executor, asyncio.to_thread)")

    def set_default_executor(self, *_args: Any) -> NoReturn:
        _forbidden("have an executor")

    async def shutdown_default_executor(self, *_args: Any, **_kwargs: Any) -> None:
        """There is none to shut down."""

    def run_forever(self) -> NoReturn:
        _forbidden("run its own loop")

    def run_until_complete(self, *_args: Any) -> NoReturn:
        _forbidden("run its own loop (run_until_complete, asyncio.run)")

    def stop(self) -> NoReturn:
        _forbidden("stop its loop")

    def close(self) -> NoReturn:
        _forbidden("close its loop")


class LoopSettings(asyncio.AbstractEventLoop):
    """What may be set on any loop, and looked up again."""

    _task_factory: Any = None
    _exception_handler: Any = None

    # asyncio asks at each future and task: the type `bool`, called with nothing, says False at once.
    get_debug: Callable[[], bool] = bool

    def set_debug(self, enabled: bool) -> None:
        self.get_debug = (lambda: True) if enabled else bool

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None and not callable(factory):
            raise TypeError("task factory must be a callable or None")
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        return self._task_factory

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def set_exception_handler(self, handler: Any) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"a callable object or None is expected, got {handler!r}")
        self._exception_handler = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing: the core does not log, and a replay must not repeat a report."""
