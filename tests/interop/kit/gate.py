# SPDX-License-Identifier: Apache-2.0
"""A door between a server's public name and its listener, which a test can shut: the network partition.

The gate owns the port that is in the server name; the server itself listens elsewhere. It lives in a
thread with a trio loop of its own, because servers are shared by the tests of a module while each test
has its own loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

import trio

from tests.interop.kit.ports import has_ipv6


class Gate:
    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.target_port = target_port
        self._open = True
        self._connections: set[trio.CancelScope] = set()
        self._token: trio.lowlevel.TrioToken | None = None
        self._everything = trio.CancelScope()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), name=f"gate-{port}", daemon=True)

    def __enter__(self) -> Gate:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError(f"the gate on port {self.port} did not come up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_loop(self._everything.cancel)
        self._thread.join(10)

    def open(self) -> None:
        self._in_loop(lambda: setattr(self, "_open", True))

    def shut(self) -> None:
        """From now on connections are closed at once; those that stand are cut."""
        self._in_loop(self._shut)

    def _shut(self) -> None:
        self._open = False
        for scope in self._connections:
            scope.cancel()

    def _in_loop(self, change: Callable[[], object]) -> None:
        assert self._token is not None
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._token.run_sync_soon(run)
        if not done.wait(10):
            raise RuntimeError(f"the gate on port {self.port} does not answer")

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._everything:
            listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            if has_ipv6():
                listeners += await trio.open_tcp_listeners(self.port, host="::1")
            self._ready.set()
            await trio.serve_listeners(self._pass, listeners)

    async def _pass(self, outside: trio.SocketStream) -> None:
        if not self._open:
            await trio.aclose_forcefully(outside)
            return
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                async with (
                    outside,
                    await trio.open_tcp_stream("127.0.0.1", self.target_port) as inside,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(_pump, outside, inside)
                    nursery.start_soon(_pump, inside, outside)
            except* OSError:
                pass  # the server behind the gate is down: its public port behaves as if closed
            finally:
                self._connections.discard(scope)


async def _pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(sink)
