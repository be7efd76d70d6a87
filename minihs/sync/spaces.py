# SPDX-License-Identifier: Apache-2.0
"""Walking spaces, and summaries of rooms wherever they are (client-server-api, "Spaces"; server-server-api,
"Spaces").

What we are not in, the servers that a child event names are asked about. Their answers are kept for some
minutes, so that paging, which walks the tree again from its top, does not ask again.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from minihs.matrix.canonical import JsonObject, is_too_deep
from minihs.matrix.errors import forbidden, invalid_param, not_found
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import is_room_id, is_server_name
from minihs.runtime import Runtime
from minihs.store import memberships
from minihs.store.database import Database
from minihs.sync.overview import (
    children_state,
    host_may_see,
    is_child,
    overview,
    user_may_see,
    user_may_see_remote,
)

log = structlog.get_logger()

DEFAULT_LIMIT, MAX_LIMIT = 50, 100
MAX_DEPTH = 10
MAX_WALK = 2_000
"""Rooms looked at for one page."""
MAX_ASKED = 30
"""Questions to other servers for one page."""
KEEP_MS = 5 * 60_000
MAX_KEPT = 300
MAX_VIA = 3

_TEXTS = (
    "name", "topic", "canonical_alias", "avatar_url", "join_rule", "room_type", "room_version", "encryption",
)  # fmt: skip
_TOKEN = re.compile(r"h([0-9]{1,5})_([0-9]{1,2})_([01])", re.ASCII)


class Federation(Protocol):
    async def hierarchy(self, host: str, room_id: str, *, suggested_only: bool = False) -> JsonObject: ...


@dataclass(slots=True)
class _Walk:
    user_id: str
    suggested_only: bool
    asked: int = 0


class Spaces:
    def __init__(self, db: Database, runtime: Runtime, our_name: str, federation: Federation) -> None:
        self._db = db
        self._runtime = runtime
        self._our_name = our_name
        self._federation = federation
        self._kept: OrderedDict[tuple[str, bool], tuple[int, JsonObject | None]] = OrderedDict()

    # -- for clients ----------------------------------------------------------------------------------

    async def hierarchy(
        self,
        user_id: str,
        room_id: str,
        *,
        suggested_only: bool,
        limit: int | None,
        max_depth: int | None,
        token: str | None,
    ) -> JsonObject:
        """GET /hierarchy: a page of the tree, depth first. M_FORBIDDEN if the root is not the user's to
        see.
        """
        skip, deepest = 0, MAX_DEPTH if max_depth is None else min(max_depth, MAX_DEPTH)
        if token is not None:
            match = _TOKEN.fullmatch(token)
            if match is None or (match[3] == "1") != suggested_only:
                raise invalid_param("The pagination token is not one of this request.")
            skip, deepest = int(match[1]), int(match[2])
        size = DEFAULT_LIMIT if limit is None else max(1, min(limit, MAX_LIMIT))
        walk = _Walk(user_id, suggested_only)
        found: list[JsonObject] = []
        seen: set[str] = set()
        stack: list[tuple[str, int, Sequence[str]]] = [(room_id, 0, ())]
        while stack and len(found) <= skip + size and len(seen) < MAX_WALK:
            at, depth, via = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            entry = await self._entry(walk, at, via)
            if entry is None:
                if at == room_id:
                    raise forbidden("This room is not yours to see, or unknown to this server.")
                continue
            entry = _with_wanted_children(entry, suggested_only)
            found.append(entry)
            if depth < deepest:
                stack += [
                    (child["state_key"], depth + 1, _via(child["content"]))
                    for child in reversed(entry["children_state"])
                ]
        page: JsonObject = {"rooms": found[skip : skip + size]}
        if len(found) > skip + size:
            page["next_batch"] = f"h{skip + size}_{deepest}_{int(suggested_only)}"
        return page

    async def _entry(self, walk: _Walk, room_id: str, via: Sequence[str]) -> JsonObject | None:
        db = self._db.read
        local = overview(db, room_id)
        if local is not None:
            if not user_may_see(db, walk.user_id, local):
                return None
            return {**local.summary, "children_state": children_state(db, local)}
        if walk.asked >= MAX_ASKED:
            return None
        walk.asked += 1
        remote = await self._ask(room_id, via, suggested_only=walk.suggested_only)
        if remote is None or not user_may_see_remote(db, walk.user_id, remote):
            return None
        return remote

    async def summary(self, user_id: str | None, room_id: str, via: Sequence[str]) -> JsonObject:
        """GET /room_summary. Without a user, only rooms that anybody may join, knock on or read."""
        db = self._db.read
        local = overview(db, room_id)
        if local is not None:
            nobody = "@:" + self._our_name
            if not user_may_see(db, user_id or nobody, local):
                raise not_found("There is no such room, or it is not yours to see.")
            held = None if user_id is None else memberships.get(db, local.room.room_nid, user_id)
            summary = dict(local.summary)
            if held is not None:
                summary["membership"] = held.membership
            return summary
        if user_id is None:
            raise not_found("There is no such room here.")
        remote = await self._ask(room_id, via, suggested_only=False)
        if remote is None or not user_may_see_remote(db, user_id, remote):
            raise not_found("There is no such room, or it is not yours to see.")
        return {name: value for name, value in remote.items() if name != "children_state"}

    # -- for other servers ----------------------------------------------------------------------------

    def for_server(self, host: str, room_id: str, *, suggested_only: bool) -> JsonObject:
        """GET /_matrix/federation/v1/hierarchy. M_NOT_FOUND if the server can't see the room."""
        db = self._db.read
        found = overview(db, room_id)
        if found is None or not host_may_see(db, host, found):
            raise not_found("There is no such room, or your server can't see it.")
        entry = _with_wanted_children(
            {**found.summary, "children_state": children_state(db, found)}, suggested_only
        )
        children: list[JsonObject] = []
        inaccessible: list[str] = []
        for child in entry["children_state"][:MAX_LIMIT]:
            of_child = overview(db, child["state_key"])
            if of_child is None:
                continue
            if host_may_see(db, host, of_child):
                summary = {**of_child.summary, "children_state": children_state(db, of_child)}
                children.append(_with_wanted_children(summary, suggested_only))
            else:
                inaccessible.append(child["state_key"])
        return {"room": entry, "children": children, "inaccessible_children": inaccessible}

    # -- asking ---------------------------------------------------------------------------------------

    async def _ask(self, room_id: str, via: Sequence[str], *, suggested_only: bool) -> JsonObject | None:
        """Another server's summary of a room, with its children; None if none gives one."""
        now = self._runtime.clock.now_ms()
        kept = self._kept.get((room_id, suggested_only))
        if kept is not None and now - kept[0] < KEEP_MS:
            return kept[1]
        hosts = [*via, *([room_id.partition(":")[2]] if ":" in room_id else [])]
        found: JsonObject | None = None
        for host in list(dict.fromkeys(hosts))[:MAX_VIA]:
            if host == self._our_name or not is_server_name(host):
                continue
            try:
                answer = await self._federation.hierarchy(host, room_id, suggested_only=suggested_only)
            except FederationError as error:
                log.debug("no summary of a room", room=room_id, host=host, error=str(error))
                continue
            found = remote_summary(answer.get("room"), room_id)
            children = answer.get("children")
            for child in children[:MAX_LIMIT] if isinstance(children, list) else []:
                child_id = child.get("room_id") if isinstance(child, dict) else None
                summary = remote_summary(child, child_id)
                # A child's own children are not always told: only what is known not to be a space is kept.
                if summary is not None and summary.get("room_type") != "m.space":
                    self._keep((summary["room_id"], suggested_only), now, summary)
            if found is not None:
                break
        self._keep((room_id, suggested_only), now, found)
        return found

    def _keep(self, key: tuple[str, bool], now: int, summary: JsonObject | None) -> None:
        self._kept[key] = (now, summary)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def remote_summary(value: object, room_id: object) -> JsonObject | None:
    """What another server says of a room, cut down to what has the types that clients rely on."""
    if not isinstance(value, dict) or not is_room_id(room_id) or value.get("room_id") != room_id:
        return None
    joined = value.get("num_joined_members")
    summary: JsonObject = {
        "room_id": room_id,
        "num_joined_members": joined if type(joined) is int and joined >= 0 else 0,
        "world_readable": value.get("world_readable") is True,
        "guest_can_join": value.get("guest_can_join") is True,
        "children_state": [],
    }
    summary.update({name: value[name] for name in _TEXTS if isinstance(value.get(name), str)})
    allowed = value.get("allowed_room_ids")
    if isinstance(allowed, list):
        summary["allowed_room_ids"] = [each for each in allowed[:50] if is_room_id(each)]
    children = value.get("children_state")
    for child in children[:1000] if isinstance(children, list) else []:
        if (
            isinstance(child, dict)
            and child.get("type") == "m.space.child"
            and is_room_id(child.get("state_key"))
            and isinstance(child.get("sender"), str)
            and type(child.get("origin_server_ts")) is int
            and isinstance(child.get("content"), dict)
            and is_child(child["content"])
            and not is_too_deep(child)
        ):
            names = ("type", "state_key", "sender", "content", "origin_server_ts")
            summary["children_state"].append({name: child[name] for name in names})
    return summary


def _with_wanted_children(entry: JsonObject, suggested_only: bool) -> JsonObject:
    """Of a space's children those that are suggested, if only those are asked for: who asks may go by what is
    in `children_state` alone."""
    if not suggested_only:
        return entry
    wanted = [child for child in entry["children_state"] if child["content"].get("suggested") is True]
    return {**entry, "children_state": wanted}


def _via(content: JsonObject) -> list[str]:
    return [host for host in content["via"] if isinstance(host, str)][:MAX_VIA]
