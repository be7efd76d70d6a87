# SPDX-License-Identifier: Apache-2.0
"""A server: its parts, put together, and the nursery that they all run in.

`Server` is a value. A process runs one; the tests run many in one trio loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from minihs.config import Config
from minihs.e2ee.service import E2ee
from minihs.federation.addresses import AddressPolicy
from minihs.federation.client import FederationClient
from minihs.federation.dial import Dialler, tls_context
from minihs.federation.discovery import Discovery
from minihs.federation.gateway import PushGateways
from minihs.federation.keyring import Keyring
from minihs.federation.media import MediaPeers
from minihs.federation.network import Network, Resolver, TcpNetwork
from minihs.federation.own_keys import OLD_KEYS_FILE, OwnKeys, read_old_keys
from minihs.federation.pools import Pools
from minihs.federation.request_auth import RequestAuth
from minihs.federation.resolver import DnsResolver
from minihs.federation.senders import Senders
from minihs.federation.web import Web
from minihs.media.service import Media
from minihs.push.pushers import Pushers
from minihs.push.rules import PushRules
from minihs.rooms.service import Rooms
from minihs.rooms.turns import Turns
from minihs.runtime import Runtime
from minihs.signing_key import load_or_create
from minihs.store.database import Database
from minihs.sync.service import Sync
from minihs.sync.spaces import Spaces
from minihs.users.local import LocalUsers
from minihs.users.presence import Presence
from minihs.users.service import Users
from minihs.web.app import App
from minihs.web.http11 import Address
from minihs.web.services import Services
from minihs.web.serving import Edge

log = structlog.get_logger(__name__)


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
        network: Network | None = None,
        resolver: Resolver | None = None,
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
            server = cls(
                build(config, runtime, db, nursery, network or TcpNetwork(), resolver or DnsResolver()),
                nursery,
            )
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
        self.services.sync.notifier.close()  # or long polls would hold it up


def build(
    config: Config,
    runtime: Runtime,
    db: Database,
    nursery: trio.Nursery,
    network: Network,
    resolver: Resolver,
) -> Services:
    """The parts, in the order in which they need each other."""
    signing_key = load_or_create(config.signing_key_path, runtime.random)
    our_name = config.server_name
    dialler = Dialler(
        network,
        resolver,
        AddressPolicy(config.federation.allow_networks),
        tls_context(verify=config.federation.verify_tls, ca_file=config.federation.ca_file),
    )
    discovery = Discovery(runtime, db, resolver, dialler)
    federation = FederationClient(
        our_name, signing_key, runtime, discovery, Pools(runtime, dialler), config.data_path / "spool"
    )
    own_keys = OwnKeys(our_name, signing_key, runtime.clock, read_old_keys(config.data_path / OLD_KEYS_FILE))
    keyring = Keyring(own_keys, db, runtime, federation, config.federation.notaries)
    senders = Senders(our_name, db, runtime, federation)
    turns = Turns()
    sync = Sync(db, runtime, our_name, turns)
    presence = Presence(db, runtime, our_name)
    e2ee = E2ee(db, runtime, config, federation=federation)
    rooms = Rooms(
        our_name=our_name,
        signing_key=signing_key,
        db=db,
        runtime=runtime,
        keys=keyring,
        federation=federation,
        users=LocalUsers(db),
        visible_to=sync.visible_to,
        durable_edus=e2ee.edu_handlers,
        fleeting_edus={
            "m.typing": sync.receive_typing,
            "m.receipt": sync.receive_receipts,
            "m.presence": presence.receive,
        },
        default_room_version=config.rooms.default_version,
        partial_joins=config.federation.partial_joins,
        turns=turns,
        nursery=nursery,
    )
    sync.connect(edus=senders, acls=rooms.acls, history=rooms, presence=presence)
    presence.connect(edus=senders, wake=sync.notifier.wake, next_serial=sync.typing.next_serial)
    users = Users(db, runtime, config, rooms=rooms, federation=federation, presence=presence)

    media = Media(db, runtime, config, peers=MediaPeers(federation), web=Web(dialler), nursery=nursery)
    # Without TLS a push gateway is dialled only where the configuration allows private networks.
    private = AddressPolicy(config.federation.allow_networks, public=False)
    gateways = PushGateways(dialler, Dialler(network, resolver, private, dialler.tls))
    pushers = Pushers(db, runtime, sync.push_source, gateways)

    def heard_from(server: str) -> None:
        federation.heard_from(server)
        senders.heard_from(server)

    for part in (users, rooms, e2ee, senders, keyring, federation, media, pushers, sync.search):
        nursery.start_soon(part.run)
    return Services(
        config=config,
        runtime=runtime,
        db=db,
        signing_key=signing_key,
        users=users,
        e2ee=e2ee,
        push_rules=PushRules(db),
        pushers=pushers,
        sync=sync,
        rooms=rooms,
        media=media,
        spaces=Spaces(db, runtime, our_name, federation),
        keyring=keyring,
        federation=federation,
        senders=senders,
        request_auth=RequestAuth(our_name, keyring, heard_from),
    )
