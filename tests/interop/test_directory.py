# SPDX-License-Identifier: Apache-2.0
"""Questions outside of rooms: who is this user of another server, which room is behind this alias."""

from __future__ import annotations

import uuid

import pytest

from tests.interop.conftest import Stage
from tests.interop.kit.client import ApiError


async def test_the_profile_of_a_user_elsewhere_can_be_read(stage: Stage) -> None:
    name = f"Änne {uuid.uuid4().hex[:6]} 🧀"
    await stage.host.set_displayname(name)

    assert (await stage.guest.profile(stage.host.user_id))["displayname"] == name


async def test_a_user_who_does_not_exist_elsewhere_is_not_found(stage: Stage) -> None:
    with pytest.raises(ApiError) as refused:
        await stage.guest.profile(f"@nobody-{uuid.uuid4().hex}:{stage.home.server_name}")

    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


async def test_a_changed_display_name_reaches_shared_rooms(stage: Stage) -> None:
    room = await stage.shared_room("11")

    await stage.guest.set_displayname("Renamed")

    def renamed(event: dict[str, object]) -> bool:
        content = event["content"]
        assert isinstance(content, dict)
        return event.get("state_key") == stage.guest.user_id and content.get("displayname") == "Renamed"

    await stage.host.wait_for(room, renamed, "the new display name")


async def test_an_alias_elsewhere_resolves_to_its_room_and_servers(stage: Stage) -> None:
    room, alias = await stage.public_room("12")

    found = await stage.guest.resolve(alias)

    assert found["room_id"] == room
    assert stage.home.server_name in found["servers"]


async def test_an_alias_that_does_not_exist_elsewhere_is_not_found(stage: Stage) -> None:
    with pytest.raises(ApiError) as refused:
        await stage.guest.resolve(stage.alias(f"nowhere-{uuid.uuid4().hex}"))

    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")
