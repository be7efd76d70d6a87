# SPDX-License-Identifier: Apache-2.0
"""A Matrix client as the tests need one: thin verbs over the client API, and a /sync that remembers what
it saw.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import trio

from tests.interop.kit.http import HttpClient, Response

type JsonObject = dict[str, Any]
V3 = "/_matrix/client/v3"
SYNC_STEP_MS = 5_000


class ApiError(Exception):
    """The homeserver answered with something else than 200."""

    def __init__(self, method: str, target: str, response: Response) -> None:
        self.status = response.status
        self.body = response.body
        try:
            decoded = response.json()
        except ValueError:
            decoded = {}
        self.errcode = decoded.get("errcode", "") if isinstance(decoded, dict) else ""
        super().__init__(f"{method} {target}: {response.status} {response.body[:500]!r}")


class NeverSeen(AssertionError):
    """What a test waited for did not come in time."""


async def admin_register(http: HttpClient, secret: str, localpart: str, *, admin: bool = False) -> Client:
    """Makes an account through the shared-secret endpoint that both servers have."""
    path = "/_synapse/admin/v1/register"
    nonce = _json_of(await http.request("GET", path), "GET", path)["nonce"]
    password = f"password of {localpart}"
    parts = [nonce, localpart, password, "admin" if admin else "notadmin"]
    mac = hmac.new(secret.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": localpart, "password": password, "admin": admin, "mac": mac}
    answer = _json_of(await http.request("POST", path, body=json.dumps(body).encode()), "POST", path)
    return Client(http, answer["user_id"], answer["access_token"], answer["device_id"])


def _json_of(response: Response, method: str, target: str) -> JsonObject:
    if response.status != 200:
        raise ApiError(method, target, response)
    decoded = response.json()
    assert isinstance(decoded, dict), decoded
    return decoded


def segment(text: str) -> str:
    return quote(text, safe="")


class Client:
    def __init__(self, http: HttpClient, user_id: str, token: str, device_id: str) -> None:
        self.http = http
        self.user_id = user_id
        self.token = token
        self.device_id = device_id
        self.since: str | None = None
        self.timeline: dict[str, list[JsonObject]] = {}  # room -> events as /sync gave them
        self.invites: dict[str, list[JsonObject]] = {}  # room -> stripped state
        self.memberships: dict[str, str] = {}  # room -> the section of /sync it was last in
        self.ephemeral: dict[str, list[JsonObject]] = {}
        self.to_device: list[JsonObject] = []
        self._txn = 0

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: dict[str, str] | Sequence[tuple[str, str]] | None = None,
        *,
        seconds: float = 60.0,
    ) -> JsonObject:
        target = path + (f"?{urlencode(query)}" if query else "")
        headers = [("Authorization", f"Bearer {self.token}")]
        data = b""
        if method in ("PUT", "POST"):
            headers.append(("Content-Type", "application/json"))
            data = json.dumps({} if body is None else body).encode()
        response = await self.http.request(method, target, headers=headers, body=data, seconds=seconds)
        return _json_of(response, method, target)

    def next_txn(self) -> str:
        self._txn += 1
        return f"{self.device_id}.{self._txn}"

    # -- rooms

    async def create_room(self, **request: object) -> str:
        answer = await self.call("POST", f"{V3}/createRoom", request)
        return str(answer["room_id"])

    async def join(self, room: str, *, via: Iterable[str] = ()) -> str:
        query = [(name, server) for server in via for name in ("via", "server_name")]
        answer = await self.call("POST", f"{V3}/join/{segment(room)}", {}, query)
        return str(answer["room_id"])

    async def leave(self, room: str) -> None:
        await self.call("POST", f"{V3}/rooms/{segment(room)}/leave")

    async def act(self, verb: str, room: str, user_id: str, reason: str | None = None) -> None:
        """invite, kick, ban, unban"""
        body = {"user_id": user_id} | ({"reason": reason} if reason else {})
        await self.call("POST", f"{V3}/rooms/{segment(room)}/{verb}", body)

    async def send(self, room: str, type_: str, content: JsonObject, *, txn: str | None = None) -> str:
        path = f"{V3}/rooms/{segment(room)}/send/{segment(type_)}/{segment(txn or self.next_txn())}"
        return str((await self.call("PUT", path, content))["event_id"])

    async def say(self, room: str, text: str, *, txn: str | None = None) -> str:
        return await self.send(room, "m.room.message", {"msgtype": "m.text", "body": text}, txn=txn)

    async def set_state(self, room: str, type_: str, content: JsonObject, state_key: str = "") -> str:
        path = f"{V3}/rooms/{segment(room)}/state/{segment(type_)}/{segment(state_key)}"
        return str((await self.call("PUT", path, content))["event_id"])

    async def redact(self, room: str, event_id: str, reason: str = "") -> str:
        path = f"{V3}/rooms/{segment(room)}/redact/{segment(event_id)}/{self.next_txn()}"
        return str((await self.call("PUT", path, {"reason": reason} if reason else {}))["event_id"])

    async def state(self, room: str) -> dict[tuple[str, str], JsonObject]:
        path = f"{V3}/rooms/{segment(room)}/state"
        response = await self.http.request("GET", path, headers=[("Authorization", f"Bearer {self.token}")])
        if response.status != 200:
            raise ApiError("GET", path, response)
        return {(event["type"], event["state_key"]): event for event in response.json()}

    async def state_ids(self, room: str) -> dict[tuple[str, str], str]:
        return {key: event["event_id"] for key, event in (await self.state(room)).items()}

    async def event(self, room: str, event_id: str) -> JsonObject:
        return await self.call("GET", f"{V3}/rooms/{segment(room)}/event/{segment(event_id)}")

    async def messages(
        self, room: str, *, start: str | None = None, limit: int = 50, backwards: bool = True
    ) -> JsonObject:
        query = {"dir": "b" if backwards else "f", "limit": str(limit)} | ({"from": start} if start else {})
        return await self.call("GET", f"{V3}/rooms/{segment(room)}/messages", None, query)

    async def history(self, room: str, *, pages: int = 40, limit: int = 50) -> list[JsonObject]:
        """Everything that can be scrolled back to, newest first."""
        events: list[JsonObject] = []
        start: str | None = None
        for _ in range(pages):
            page = await self.messages(room, start=start, limit=limit)
            events += page["chunk"]
            if (start := page.get("end")) is None:
                break
        return events

    async def joined_members(self, room: str) -> set[str]:
        return set((await self.call("GET", f"{V3}/rooms/{segment(room)}/joined_members"))["joined"])

    # -- people and names

    async def profile(self, user_id: str) -> JsonObject:
        return await self.call("GET", f"{V3}/profile/{segment(user_id)}")

    async def set_displayname(self, name: str) -> None:
        await self.call("PUT", f"{V3}/profile/{segment(self.user_id)}/displayname", {"displayname": name})

    async def resolve(self, alias: str) -> JsonObject:
        return await self.call("GET", f"{V3}/directory/room/{segment(alias)}")

    # -- /sync

    async def sync(self, timeout_ms: int = 0) -> JsonObject:
        query = {"timeout": str(timeout_ms)} | ({"since": self.since} if self.since else {})
        answer = await self.call("GET", f"{V3}/sync", None, query, seconds=60 + timeout_ms / 1000)
        self.since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        for section in ("join", "leave"):
            for room_id, room in rooms.get(section, {}).items():
                self.memberships[room_id] = section
                self.invites.pop(room_id, None)
                self.timeline.setdefault(room_id, []).extend(room.get("timeline", {}).get("events", []))
                self.ephemeral.setdefault(room_id, []).extend(room.get("ephemeral", {}).get("events", []))
        for room_id, room in rooms.get("invite", {}).items():
            self.memberships[room_id] = "invite"
            self.invites[room_id] = room["invite_state"]["events"]
        self.to_device += answer.get("to_device", {}).get("events", [])
        return answer

    async def wait_until[T](self, look: Callable[[], T | None], what: str, *, seconds: float = 30.0) -> T:
        """Syncs until `look` finds something in what was seen so far."""
        with trio.move_on_after(seconds):
            while True:
                if (found := look()) is not None and found is not False:
                    return found
                await self.sync(SYNC_STEP_MS)
        raise NeverSeen(f"{self.user_id} waited {seconds} s for {what}; memberships {self.memberships}")

    def seen(self, room: str, matches: Callable[[JsonObject], bool]) -> JsonObject | None:
        return next((event for event in self.timeline.get(room, []) if matches(event)), None)

    async def wait_for(
        self, room: str, matches: Callable[[JsonObject], bool], what: str, *, seconds: float = 30.0
    ) -> JsonObject:
        return await self.wait_until(lambda: self.seen(room, matches), f"{what} in {room}", seconds=seconds)

    async def wait_for_id(self, room: str, event_id: str, *, seconds: float = 30.0) -> JsonObject:
        return await self.wait_for(
            room, lambda event: event["event_id"] == event_id, event_id, seconds=seconds
        )

    async def wait_for_membership(
        self, room: str, user_id: str, membership: str, *, seconds: float = 30.0
    ) -> JsonObject:
        """The newest membership event of a user must become this one."""
        await self.sync()  # what this user's own server knows already counts, not what was last asked

        def look() -> JsonObject | None:
            events = [
                e
                for e in self.timeline.get(room, [])
                if e["type"] == "m.room.member" and e["state_key"] == user_id
            ]
            return events[-1] if events and events[-1]["content"].get("membership") == membership else None

        return await self.wait_until(look, f"{user_id} to be {membership} in {room}", seconds=seconds)

    async def wait_for_section(self, room: str, section: str, *, seconds: float = 30.0) -> None:
        """join, leave or invite: where /sync lists the room for this user."""
        await self.sync()
        await self.wait_until(
            lambda: self.memberships.get(room) == section or None, f"{room} in {section}", seconds=seconds
        )

    async def aclose(self) -> None:
        await self.http.aclose()
