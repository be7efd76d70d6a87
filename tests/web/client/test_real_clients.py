# SPDX-License-Identifier: Apache-2.0
"""What real clients call, under the paths they call it by, and what they must find in the answer.

Measured by recording Element Web, Cinny, Hydrogen, matrix-js-sdk, matrix-nio and nheko. To a client,
M_UNRECOGNIZED ("this server has no such endpoint") is not M_NOT_FOUND ("there is no such thing"): several
give up on the one where they go on after the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tests.web.client.kit import PASSWORD
from tests.web.client.rooms_kit import Person, TestHome, open_home

KEY_DATA = {"first_message_index": 0, "forwarded_count": 0, "is_verified": True, "session_data": {}}
BACKUP = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "abc"}}
CLIENTS = {"E": "element", "C": "cinny", "H": "hydrogen", "J": "js-sdk", "N": "nio", "K": "nheko"}


class Row(NamedTuple):
    clients: str
    """Letters of CLIENTS."""
    prefixes: str
    """Under /_matrix/client: "r0 v3"; or empty, when the path is whole."""
    method: str
    path: str
    body: Any = None
    wants: str = ""
    """Fields that the client reads and can't do without."""
    status: int = 200
    errcode: str = ""


LOGIN = {
    "type": "m.login.password",
    "identifier": {"type": "m.id.user", "user": "alice"},
    "password": "{password}",
}
SYNC_FILTER = "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A20%7D%7D%7D"

ROWS = [
    # Signing in
    Row("ECHJ", "", "GET", "/_matrix/client/versions", wants="versions"),
    Row("ECHJ", "r0 v3", "GET", "/login", wants="flows"),
    Row("ECHJN", "r0 v3", "POST", "/login", LOGIN, "user_id access_token device_id"),
    Row("CH", "", "GET", "/.well-known/matrix/client", wants="m.homeserver"),
    Row("E", "unstable", "GET", "/org.matrix.msc2965/auth_issuer", status=404, errcode="M_UNRECOGNIZED"),
    Row("E", "unstable", "GET", "/org.matrix.msc2965/auth_metadata", status=404, errcode="M_UNRECOGNIZED"),
    Row("J", "v1", "GET", "/auth_metadata", status=404, errcode="M_UNRECOGNIZED"),
    Row("C", "v3", "POST", "/register", {}, status=403, errcode="M_FORBIDDEN"),
    # Starting
    Row("EC", "v3", "GET", "/pushrules/", wants="global"),
    Row("J", "v3", "GET", "/pushrules/", wants="global"),
    Row(
        "ECHJN",
        "r0 v3",
        "POST",
        "/user/{me}/filter",
        {"room": {"state": {"lazy_load_members": True}}},
        "filter_id",
    ),
    Row("EC", "v3", "GET", "/user/{me}/filter/{filter}", wants="room"),
    Row("EC", "v3", "GET", "/user/{me}/filter/99", status=404, errcode="M_NOT_FOUND"),
    Row(
        "EJ",
        "v3",
        "GET",
        "/sync?timeout=0&filter={filter}&set_presence=online&org.matrix.msc4222.use_state_after=true&_cacheBuster=1",
        wants="next_batch rooms device_one_time_keys_count device_unused_fallback_key_types",
    ),
    Row(
        "CHNK",
        "r0 v3",
        "GET",
        f"/sync?timeout=0&filter={SYNC_FILTER}",
        wants="next_batch rooms device_one_time_keys_count device_unused_fallback_key_types",
    ),
    Row("ECJ", "v3", "GET", "/capabilities", wants="capabilities"),
    Row("ECK", "v3", "GET", "/voip/turnServer"),
    Row("E", "v3", "GET", "/thirdparty/protocols"),
    Row("ECJNK", "v3", "GET", "/devices", wants="devices"),
    Row("J", "unstable", "GET", "/org.matrix.msc4143/rtc/transports", status=404),
    Row("H", "unstable", "GET", "/org.matrix.msc2697.v2/dehydrated_device", status=404),
    Row(
        "E", "unstable", "GET", "/org.matrix.msc3814.v1/dehydrated_device", status=404, errcode="M_NOT_FOUND"
    ),
    Row("JN", "v3", "GET", "/account/whoami", wants="user_id device_id"),
    Row("J", "v1", "GET", "/login/get_token", status=405, errcode="M_UNRECOGNIZED"),
    # Rooms
    Row("ECHJN", "r0 v3", "POST", "/createRoom", {"preset": "private_chat", "is_direct": True}, "room_id"),
    Row("ECJN", "v3", "POST", "/join/{alias}?server_name=example.org&via=example.org", {}, "room_id"),
    Row("H", "r0", "POST", "/rooms/{room}/join", {}, "room_id"),
    Row("ECH", "r0 v3", "POST", "/rooms/{room}/invite", {"user_id": "@carol:example.org"}),
    Row("ECH", "r0 v3", "GET", "/rooms/{room}/members?not_membership=leave&at={since}", wants="chunk"),
    Row("N", "v3", "GET", "/rooms/{room}/joined_members", wants="joined"),
    Row("N", "v3", "GET", "/joined_rooms", wants="joined_rooms"),
    Row(
        "ECHJN",
        "r0 v3",
        "PUT",
        "/rooms/{room}/send/m.room.message/t1",
        {"msgtype": "m.text", "body": "x"},
        "event_id",
    ),
    Row(
        "ECHJN",
        "r0 v3",
        "GET",
        "/rooms/{room}/messages?dir=b&limit=30&from={since}&filter=%7B%22lazy_load_members%22%3Atrue%7D",
        wants="chunk start",
    ),
    Row("ECHJN", "r0 v3", "POST", "/rooms/{room}/receipt/m.read/{event}", {"thread_id": "main"}),
    Row(
        "EJN",
        "v3",
        "POST",
        "/rooms/{room}/read_markers",
        {"m.fully_read": "{event}", "m.read": "{event}", "m.read.private": "{event}"},
    ),
    Row("ECJN", "v3", "PUT", "/rooms/{room}/typing/{me}", {"typing": True, "timeout": 30_000}),
    Row(
        "N",
        "v3",
        "GET",
        "/rooms/{room}/context/{event}?limit=10",
        wants="event events_before events_after state",
    ),
    Row("JN", "v3", "GET", "/rooms/{room}/event/{event}", wants="event_id sender content room_id"),
    Row("N", "v3", "GET", "/rooms/{room}/state"),
    Row("N", "v3", "GET", "/rooms/{room}/state/m.room.join_rules/", wants="join_rule"),
    Row("JN", "v3", "PUT", "/rooms/{room}/state/m.room.topic/", {"topic": "soup"}, "event_id"),
    Row("JN", "v3", "PUT", "/rooms/{room}/redact/{event}/t2", {"reason": "why not"}, "event_id"),
    Row("J", "v1", "GET", "/rooms/{room}/hierarchy?limit=20", wants="rooms"),
    Row("J", "v1", "GET", "/rooms/{room}/relations/{event}?dir=b&recurse=true", wants="chunk"),
    Row("J", "v1", "GET", "/rooms/{room}/relations/{event}/m.thread", wants="chunk"),
    Row("J", "v1", "GET", "/rooms/{room}/relations/{event}/m.thread/m.room.message", wants="chunk"),
    Row("J", "v1", "GET", "/rooms/{room}/threads?include=all", wants="chunk"),
    Row("J", "v3", "GET", "/directory/room/{alias}", wants="room_id servers"),
    Row("J", "v3", "GET", "/publicRooms?limit=5", wants="chunk"),
    Row("J", "v3", "POST", "/publicRooms", {"limit": 5, "filter": {"generic_search_term": "x"}}, "chunk"),
    Row(
        "C",
        "unstable",
        "GET",
        "/im.nheko.summary/summary/{alias}?via=example.org",
        wants="room_id membership",
    ),
    Row("E", "unstable", "GET", "/im.nheko.summary/summary/{room}", wants="room_id membership"),
    Row("E", "v3", "GET", "/rooms/{room}/initialSync?limit=20", wants="room_id"),
    Row("E", "v3", "GET", "/events?room_id={room}&timeout=0", status=404),
    Row("J", "v3", "PUT", "/user/{me}/rooms/{room}/tags/m.favourite", {"order": 0.5}),
    # People
    Row("ECJNK", "v3", "GET", "/profile/{me}"),
    Row("EC", "v3", "GET", "/profile/@nobody:example.org", status=404, errcode="M_NOT_FOUND"),
    Row("JN", "v3", "PUT", "/profile/{me}/displayname", {"displayname": "Alice"}),
    Row("N", "v3", "GET", "/presence/{me}/status", wants="presence"),
    Row("JN", "v3", "PUT", "/presence/{me}/status", {"presence": "online"}),
    Row("J", "v3", "POST", "/user_directory/search", {"search_term": "bo", "limit": 5}, "results limited"),
    # Account data and push rules
    Row("EJ", "v3", "PUT", "/user/{me}/account_data/m.secret_storage.default_key", {"key": "abc"}),
    Row("EJ", "v3", "GET", "/user/{me}/account_data/m.direct", status=404, errcode="M_NOT_FOUND"),
    Row("N", "v3", "PUT", "/pushrules/global/room/{room}", {"actions": []}),
    Row("N", "v3", "DELETE", "/pushrules/global/room/{room}"),
    # Encryption
    Row("ECHJNK", "r0 v3", "POST", "/keys/upload", {}, "one_time_key_counts"),
    Row(
        "ECHJNK",
        "r0 v3",
        "POST",
        "/keys/query",
        {"device_keys": {"{me}": [], "{other}": []}},
        "device_keys master_keys self_signing_keys user_signing_keys",
    ),
    Row(
        "ECHJN",
        "r0 v3",
        "POST",
        "/keys/claim",
        {"one_time_keys": {"{other}": {"D": "signed_curve25519"}}},
        "one_time_keys",
    ),
    Row("ECHJN", "r0 v3", "PUT", "/sendToDevice/m.room.encrypted/t3", {"messages": {"{other}": {"*": {}}}}),
    # Element only wants to know whether there is such a thing, and goes on.
    Row(
        "EJ", "unstable v3", "POST", "/keys/device_signing/upload", {}, status=400, errcode="M_MISSING_PARAM"
    ),
    Row("EJ", "v3", "POST", "/keys/signatures/upload", {}),
    Row("ECJK", "v3", "GET", "/room_keys/version", status=404, errcode="M_NOT_FOUND"),
    Row("EJ", "v3", "POST", "/room_keys/version", BACKUP, "version"),
    Row("EJ", "v3", "GET", "/room_keys/version", wants="version algorithm auth_data count etag"),
    Row("J", "v3", "GET", "/room_keys/version/1", wants="version algorithm auth_data count etag"),
    Row(
        "EJ",
        "v3",
        "PUT",
        "/room_keys/keys?version=1",
        {"rooms": {"{room}": {"sessions": {"s": KEY_DATA}}}},
        "count etag",
    ),
    Row(
        "EJ",
        "v3",
        "PUT",
        "/room_keys/keys?version=9",
        {"rooms": {}},
        status=403,
        errcode="M_WRONG_ROOM_KEYS_VERSION",
    ),
    Row("J", "v3", "GET", "/room_keys/keys?version=1", wants="rooms"),
    Row("EJ", "v3", "GET", "/room_keys/keys/{room}/s?version=1", wants="session_data"),
    Row("EJ", "v3", "GET", "/room_keys/keys/{room}/t?version=1", status=404, errcode="M_NOT_FOUND"),
    # Media
    Row("EC", "", "GET", "/_matrix/media/v3/config", wants="m.upload.size"),
    Row("JN", "v1", "GET", "/media/config", wants="m.upload.size"),
    Row("ECJN", "", "POST", "/_matrix/media/v3/upload?filename=a.txt", b"hello", "content_uri"),
    Row("H", "", "POST", "/_matrix/media/r0/upload?filename=a.txt", b"hello", "content_uri"),
    Row("ECHJN", "v1", "GET", "/media/download/{media}?allow_redirect=true"),
    Row(
        "EHJ",
        "v1",
        "GET",
        "/media/thumbnail/{media}?width=32&height=32&method=crop&allow_redirect=true",
        status=400,
    ),
    # Going
    Row("N", "v3", "POST", "/rooms/{room}/leave", {}),
    Row("N", "v3", "POST", "/rooms/{room}/forget", {}),
    Row("ECJN", "v3", "POST", "/logout", {}),
    Row("H", "r0", "POST", "/logout", {}),
]


class Names(dict[str, str]):
    """What the rows' placeholders stand for."""

    def filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.filled(key): self.filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.filled(each) for each in value]
        return value.format_map(self) if isinstance(value, str) and value.startswith("{") else value


async def furnish(home: TestHome, alice: Person) -> Names:
    """A room with Bob in it and a message."""
    bob = await home.person("bob")
    await home.person("carol")
    room = await alice.room(name="Kitchen", room_alias_name="kitchen")
    await bob.post(f"/join/{quote(room)}")
    event = await alice.say(room, "soup is ready")
    filter = (await alice.post(f"/user/{alice.user_id}/filter", {"room": {}}))["filter_id"]
    uploaded = (await alice.ask("POST", "/_matrix/media/v3/upload", b"just text")).json
    return Names(
        room=room,
        event=event,
        filter=filter,
        me=alice.user_id,
        other=bob.user_id,
        alias="#kitchen:example.org",
        media=uploaded["content_uri"].removeprefix("mxc://"),
        since=(await alice.sync())["next_batch"],
        password=PASSWORD,
    )


def targets(row: Row, names: Names) -> list[str]:
    path, _, query = row.path.partition("?")
    if not path.startswith("/_matrix/media"):
        quoted = {name: quote(value, safe="/" if name == "media" else "") for name, value in names.items()}
        path, query = path.format_map(quoted), query.format_map(quoted)
    whole = path + ("?" + query if query else "")
    return [f"/_matrix/client/{prefix}{whole}" for prefix in row.prefixes.split()] or [whole]


@pytest.mark.parametrize("letter", CLIENTS, ids=CLIENTS.get)
async def test_a_client_is_answered_as_it_needs(letter: str, tmp_path: Path) -> None:
    problems = []
    async with open_home(tmp_path, public_base_url="https://example.org") as home:
        alice = await home.person("alice")
        names = await furnish(home, alice)
        for row in (row for row in ROWS if letter in row.clients):
            for target in targets(row, names):
                body = names.filled(row.body) if row.body is not None else b""
                answer = await home.house.ask(row.method, target, body=body, token=alice.token)
                told = answer.headers.get("Access-Control-Allow-Origin") == "*"
                found = answer.json if "json" in answer.headers.get("Content-Type", "") else {}
                lacking = [field for field in row.wants.split() if field not in found]
                refusal = found.get("errcode", "") if isinstance(found, dict) else ""
                if answer.status != row.status or lacking or not told or refusal != (row.errcode or refusal):
                    problems.append(f"{row.method} {target} {answer} lacking {lacking}")
    assert not problems, "\n".join(problems)


async def test_every_path_answers_a_browsers_question_first(tmp_path: Path) -> None:
    """OPTIONS, without a token."""
    async with open_home(tmp_path) as home:
        names = await furnish(home, await home.person("alice"))
        for row in ROWS:
            for target in targets(row, names):
                answer = await home.house.ask("OPTIONS", target)
                assert answer.status in (200, 204), target
                assert row.method in answer.headers["Access-Control-Allow-Methods"]
                assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
