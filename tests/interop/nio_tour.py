# SPDX-License-Identifier: Apache-2.0
"""What bots do besides encryption, by matrix-nio, which checks the shape of each answer itself.

    python nio_tour.py FOLDER BASE_URL ANNA PASSWORD BASE_URL BERTA PASSWORD

Prints a line for each step that was seen and ends with status 1 at the first that was not.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import sys
from pathlib import Path
from typing import Any

from nio import AsyncClient, DeleteDevicesAuthResponse, ReceiptType, ResizingMethod
from nio.api import PushRuleKind, RelationshipType
from nio.responses import ErrorResponse

logging.getLogger("nio").setLevel(logging.CRITICAL)  # it complains of the refusal that is wanted

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGElEQVR42mP8z0AaYCJR/aiGUQ1DSAMAQC4BH2bjRnMAAAAASUVORK5CYII="
)


def step(name: str, good: object) -> None:
    print("ok  " if good else "FAIL", name, flush=True)
    if not good:
        sys.exit(1)


async def good(answer: Any) -> Any:
    """The answer, which nio could read."""
    response = await answer
    assert not isinstance(response, ErrorResponse), response
    return response


async def people(anna: AsyncClient, berta: AsyncClient, folder: Path) -> None:
    step("logging in is offered", "m.login.password" in (await good(anna.login_info())).flows)
    for client in (anna, berta):
        await good(client.sync(full_state=True))
    step("who am I", (await good(anna.whoami())).user_id == anna.user_id)
    await good(anna.set_displayname("Anna A."))
    picture = folder / "picture.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(PICTURE)
    uploaded, _ = await anna.upload(lambda *_: picture, "image/png", "picture.png", filesize=len(PICTURE))
    uri: str = (await good(as_it_is(uploaded))).content_uri
    await good(anna.set_avatar(uri))
    profile = await good(berta.get_profile(anna.user_id))
    step("a profile", (profile.displayname, profile.avatar_url) == ("Anna A.", uri))
    step("a file comes back", (await good(berta.download(uri))).body == PICTURE)
    server, _, media = uri.removeprefix("mxc://").partition("/")
    small = await good(berta.thumbnail(server, media, 8, 8, ResizingMethod.crop))
    step("and a thumbnail", small.body[:4] == b"\x89PNG" or small.body[:2] == b"\xff\xd8")
    step("the limit of uploads", (await good(anna.content_repository_config())).upload_size > 0)
    await good(anna.set_presence("online", "at home"))
    step("presence", (await good(anna.get_presence(anna.user_id))).status_msg == "at home")
    step("an OpenID token", (await good(anna.get_openid_token(anna.user_id))).access_token)
    step("a filter", (await good(anna.upload_filter(room={"timeline": {"limit": 5}}))).filter_id)


async def as_it_is(value: Any) -> Any:
    return value


async def rooms(anna: AsyncClient, berta: AsyncClient) -> None:
    name = anna.user_id[1:].partition(":")[0]
    room = (await good(anna.room_create(name="Bots", topic="all of them", alias=name))).room_id
    alias = f"#{name}:{anna.user_id.partition(':')[2]}"
    step("an alias is resolved", (await good(berta.room_resolve_alias(alias))).room_id == room)
    await good(anna.room_put_alias(f"#more-{name}:{anna.user_id.partition(':')[2]}", room))
    await good(anna.room_delete_alias(f"#more-{name}:{anna.user_id.partition(':')[2]}"))
    await good(anna.room_get_visibility(room))
    await good(anna.room_invite(room, berta.user_id))
    await good(berta.sync())
    step("the invite is seen", room in berta.invited_rooms)
    await good(berta.join(room))
    first = (
        await good(berta.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "one"}))
    ).event_id
    thread = {"rel_type": "m.thread", "event_id": first}
    second = (
        await good(
            anna.room_send(
                room, "m.room.message", {"msgtype": "m.text", "body": "two", "m.relates_to": thread}
            )
        )
    ).event_id
    await good(anna.sync())
    step(
        "members",
        {user.user_id for user in (await good(anna.joined_members(room))).members}
        == {anna.user_id, berta.user_id},
    )
    step("rooms", room in (await good(berta.joined_rooms())).rooms)
    await good(anna.update_room_topic(room, "soup"))
    topic = await good(berta.room_get_state_event(room, "m.room.topic"))
    step("state", topic.content["topic"] == "soup" and (await good(berta.room_get_state(room))).events)
    step("permissions", await anna.has_event_permission(room, "m.room.name", "state"))
    page = await good(anna.room_messages(room, limit=50))
    step("history", first in [event.event_id for event in page.chunk])
    context = await good(anna.room_context(room, first, limit=4))
    step("context", context.event.event_id == first)
    step("an event", (await good(anna.room_get_event(room, first))).event.body == "one")
    related = [each async for each in anna.room_get_event_relations(room, first, RelationshipType.thread)]
    step("a thread", [each.event_id for each in related] == [second])
    step("the list of threads", [each.event_id async for each in anna.room_get_threads(room)] == [first])
    await good(berta.room_typing(room, True))
    await good(berta.update_receipt_marker(room, first, ReceiptType.read))
    await good(berta.room_read_markers(room, second, second, second))
    await good(anna.sync())
    step("typing is seen", berta.user_id in anna.rooms[room].typing_users)
    step("a receipt is seen", berta.user_id in anna.rooms[room].read_receipts)
    await good(berta.room_redact(room, first, "no"))
    step("a redacted event", not getattr((await good(anna.room_get_event(room, first))).event, "body", ""))
    await good(anna.room_kick(room, berta.user_id, "out"))
    await good(anna.room_ban(room, berta.user_id, "for ever"))
    await good(anna.room_unban(room, berta.user_id))
    await good(anna.room_enable_knocking(room))
    await good(berta.room_knock(room, "please"))
    await good(anna.room_invite(room, berta.user_id))
    await good(berta.join(room))
    await good(berta.room_leave(room))
    step("coming and going", await good(berta.room_forget(room)))
    space = (await good(anna.room_create(space=True, name="Space"))).room_id
    await good(anna.room_put_state(space, "m.space.child", {"via": [alias.partition(":")[2]]}, room))
    found = (await good(anna.space_get_hierarchy(space))).rooms
    step("a space", [each["room_id"] for each in found] == [space, room])
    await good(anna.list_public_rooms(limit=5))


async def settings(anna: AsyncClient, password: str) -> None:
    room_rule = (PushRuleKind.override, "my.rule")
    await good(anna.set_pushrule("global", *room_rule, actions=[], conditions=[]))
    await good(anna.enable_pushrule("global", *room_rule, enable=False))
    await good(anna.set_pushrule_actions("global", *room_rule, actions=[]))
    step("push rules", await good(anna.delete_pushrule("global", *room_rule)))
    other = AsyncClient(anna.homeserver, anna.user_id)
    await good(other.login(password, device_name="other"))
    await good(anna.update_device(other.device_id, {"display_name": "Renamed"}))
    devices = (await good(anna.devices())).devices
    step("devices", [each.display_name for each in devices if each.id == other.device_id] == ["Renamed"])
    challenge = await good(anna.delete_devices([other.device_id]))
    step("deleting one takes the password", isinstance(challenge, DeleteDevicesAuthResponse))
    user = {"type": "m.id.user", "user": anna.user_id}
    auth = {
        "type": "m.login.password",
        "session": challenge.session,
        "identifier": user,
        "password": password,
    }
    await good(anna.delete_devices([other.device_id], auth))
    step("it is logged out", isinstance(await other.whoami(), ErrorResponse))
    await other.close()


async def main(folder: Path, *given: str) -> None:
    anna, berta = AsyncClient(given[0], given[1]), AsyncClient(given[3], given[4])
    try:
        await good(anna.login(given[2], device_name="nio"))
        await good(berta.login(given[5], device_name="nio"))
        await people(anna, berta, folder)
        await rooms(anna, berta)
        await settings(anna, given[2])
        step("logging out", await good(anna.logout()))
    finally:
        await anna.close()
        await berta.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
