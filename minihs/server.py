# SPDX-License-Identifier: Apache-2.0
"""A server: its parts, put together, and the nursery that they all run in.

`Server` is a value. A process runs one; the tests run many in one trio loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio
from werkzeug.datastructures import Headers

from minihs.config import Config
from minihs.e2ee.service import E2ee
from minihs.matrix.errors import unauthorized
from minihs.push.rules import PushRules
from minihs.runtime import Runtime
from minihs.signing_key import load_or_create
from minihs.store.database import Database
from minihs.sync.ports import NoEdus, NoHistory, OpenAcls
from minihs.sync.service import Sync
from minihs.users.service import Users
from minihs.web.app import App
from minihs.web.connection import Address
from minihs.web.services import Services
from minihs.web.serving import Edge

log = structlog.get_logger(__name__)


class NoRequestAuth:
    """Stands in until signatures of requests are checked."""

    async def authenticate(self, method: str, raw_uri: str, headers: Headers, content: Any) -> str:
        raise unauthorized("This server can't check signatures yet.")


class Server:
    """A running homeserver."""

    def __init__(self, services: Services, nursery: trio.Nursery) -> None:
        self.services = services
        self.edge = Edge(App(services))
        self.nursery = nursery
        self._stop = trio.Event()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: Config,
        runtime: Runtime | None = None,
        *,
        network: Any = None,
        resolver: Any = None,
        inline_database: bool = False,
    ) -> AsyncIterator[Server]:
        """Build the parts and start what runs by itself; `serve` or `handle` then let the world in.

        `inline_database` is for tests under a virtual clock: no writer thread and no fsync.
        """
        runtime = runtime or Runtime()
        config.data_path.mkdir(parents=True, exist_ok=True)
        # The database outlives every task: its writer finishes what they have handed to it.
        async with (
            Database.open(
                config.database_path,
                runtime,
                inline=inline_database,
                synchronous="OFF" if inline_database else "FULL",
            ) as db,
            trio.open_nursery() as nursery,
        ):
            server = cls(build(config, runtime, db, nursery), nursery)
            try:
                yield server
            finally:
                nursery.cancel_scope.cancel()

    async def handle(self, stream: trio.abc.Stream, peer: Address, local: Address) -> None:
        """Serve one connection of whatever kind: the in-memory network of the tests comes in here."""
        await self.edge.handle(stream, peer, local)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen as configured until `stop`; returns when the open requests have ended."""
        await self.edge.open(self.services.config)
        await self.edge.open_admin(self.services.config.admin_socket_path)
        for door in self.edge.doors:
            log.info("listening", address=str(door), apis=",".join(sorted(door.policy.apis)))
        task_status.started()
        await self.edge.serve(self._stop)

    def stop(self) -> None:
        self._stop.set()


def build(config: Config, runtime: Runtime, db: Database, nursery: trio.Nursery) -> Services:
    """The parts, in the order in which they need each other."""
    signing_key = load_or_create(config.signing_key_path, runtime.random)
    users = Users(db, runtime, config)
    nursery.start_soon(users.run)
    request_auth = NoRequestAuth()
    sync = Sync(db, runtime, config.server_name)
    sync.connect(edus=NoEdus(), acls=OpenAcls(), history=NoHistory())
    return Services(
        config=config,
        runtime=runtime,
        db=db,
        signing_key=signing_key,
        users=users,
        e2ee=E2ee(db, runtime, config),
        push_rules=PushRules(db),
        sync=sync,
        request_auth=request_auth,
    )
