# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the interop suite: one pair of homeservers for all, and two people per test."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.interop.kit.client import Client
from tests.interop.kit.group import Group, running_group
from tests.interop.kit.homeserver import Homeserver

# synapse-synapse is the control: what fails there is a fault of the suite. minihs-minihs is a bonus.
PAIRS = os.environ.get("MINIHS_INTEROP_PAIRS", "minihs-synapse").split(",")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(os.path.dirname(__file__)):
            item.add_marker("interop")


@pytest.fixture(scope="session", params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with running_group(request.param.split("-"), tmp_path_factory.mktemp("pair")) as both:
        yield both


@dataclass(frozen=True, slots=True)
class Stage:
    """A room lives on `home`; `host` made it. `guest` is a user of the other server."""

    pair: Group
    home: Homeserver
    away: Homeserver
    host: Client
    guest: Client

    def alias(self, localpart: str) -> str:
        return f"#{localpart}:{self.home.server_name}"

    async def public_room(self, version: str, **request: Any) -> tuple[str, str]:
        """A room that anyone may join, with an alias: (room, alias)."""
        localpart = uuid.uuid4().hex[:8]
        room = await self.host.create_room(
            preset="public_chat", room_version=version, room_alias_name=localpart, **request
        )
        return room, self.alias(localpart)

    async def shared_room(self, version: str, **request: Any) -> str:
        """A room in which both are, and both have seen that."""
        room, alias = await self.public_room(version, **request)
        assert await self.guest.join(alias) == room
        await self.host.wait_for_membership(room, self.guest.user_id, "join")
        await self.guest.wait_for_section(room, "join")
        return room


@pytest.fixture(params=[0, 1], ids=["room-on-first", "room-on-second"])
def home(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
async def stage(pair: Group, home: int) -> AsyncIterator[Stage]:
    await pair.start_again()
    at_home, away = pair.servers[home], pair.servers[1 - home]
    host = await at_home.register(f"anna-{uuid.uuid4().hex[:8]}")
    guest = await away.register(f"berta-{uuid.uuid4().hex[:8]}")
    yield Stage(pair, at_home, away, host, guest)
    await host.aclose()
    await guest.aclose()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failure shows the end of both servers' logs, and where they lie."""
    report = yield
    groups = [used for used in getattr(item, "funcargs", {}).values() if isinstance(used, Group)]
    for server in (server for group in groups if report.failed for server in group.servers):
        title = f"{server.kind} {server.server_name}: {server.log_file}"
        report.sections.append((title, server.log_tail(50)))
    return report
