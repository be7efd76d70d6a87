# SPDX-License-Identifier: Apache-2.0
"""All that can be done with rooms, under one name: what routes call.

Every verb is durable before it returns and goes on to its end if its caller is cancelled. Errors are
MatrixErrors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
import trio

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, invalid_param, not_found
from minihs.matrix.ids import is_room_alias, is_room_id, is_user_id
from minihs.matrix.signatures import SigningKey
from minihs.rooms.acl import Acls
from minihs.rooms.asking import Asking
from minihs.rooms.backfill import Backfill
from minihs.rooms.by_time import ByTime
from minihs.rooms.catch_up import CatchUp
from minihs.rooms.creation import plan
from minihs.rooms.directory import Directory
from minihs.rooms.entry import ClientTxn
from minihs.rooms.following import Following
from minihs.rooms.gap_state import GapState
from minihs.rooms.gaps import Gaps
from minihs.rooms.graph import Graph
from minihs.rooms.invites import Invites
from minihs.rooms.membership import Memberships
from minihs.rooms.out_of_band import OutOfBand
from minihs.rooms.partial_resync import Resync
from minihs.rooms.parts import Parts
from minihs.rooms.ports import Federation, Keys, LocalUsers
from minihs.rooms.receive import Receiver
from minihs.rooms.resident import Resident
from minihs.rooms.sending import Sending
from minihs.rooms.serving import Serving, VisibleTo
from minihs.rooms.tasks import RoomTasks
from minihs.rooms.third_party import ThirdParty
from minihs.rooms.transactions import EduHandler, Transactions
from minihs.rooms.turns import Turns
from minihs.rooms.upgrade import Upgrades
from minihs.rooms.whole import Whole
from minihs.runtime import Runtime
from minihs.store import client_txns, events, inbox, memberships, rooms
from minihs.store.database import Database, Tx

log = structlog.get_logger()

_DAY_MS = 24 * 3600_000


class Rooms:
    def __init__(
        self,
        *,
        our_name: str,
        signing_key: SigningKey,
        db: Database,
        runtime: Runtime,
        keys: Keys,
        federation: Federation,
        users: LocalUsers,
        visible_to: VisibleTo,
        durable_edus: Mapping[str, EduHandler],
        fleeting_edus: Mapping[str, EduHandler],
        default_room_version: str,
        partial_joins: bool = False,
        turns: Turns | None = None,
        nursery: trio.Nursery,
    ) -> None:
        graph = Graph(db.read)
        db.on_every_commit(graph.see_commit)
        self.parts = parts = Parts(
            our_name,
            signing_key,
            db,
            runtime,
            graph,
            keys,
            federation,
            RoomTasks(nursery),
            turns or Turns(),
            default_room_version,
            Whole(db),
            partial_joins,
        )
        self.acls = Acls(db.read, graph)
        asking = Asking(parts)
        states = GapState(parts, asking)
        self.gaps = Gaps(parts, asking, states)
        self.out_of_band = OutOfBand(parts)
        self.receiver = Receiver(parts, self.gaps, self.out_of_band)
        self.members = Memberships(parts, self.receiver, self.out_of_band, self.gaps, users.member_profile)
        self.invites = Invites(parts, self.acls, self.receiver, self.out_of_band, self.members, users)
        self.third_party = ThirdParty(parts, self.acls, self.invites, users)
        self.sending = Sending(parts)
        self.directory = Directory(parts)
        self.following = Following(parts)
        self.upgrades = Upgrades(parts, self.members, self.sending, self.following, users.member_profile)
        self.serving = Serving(parts, self.acls, visible_to)
        self.resident = Resident(parts, self.acls, self.gaps, self.members, self.serving.slots)
        self.history = Backfill(parts, asking, states)
        self.by_time = ByTime(parts, self.history)
        self.transactions = Transactions(
            parts, self.acls, self.receiver, durable=durable_edus, fleeting=fleeting_edus
        )
        self.catch_up = CatchUp(parts, self.transactions)
        self.resync = Resync(parts, self.receiver, self.members.leave_again)
        self._users = users

    async def run(self) -> None:
        """Work that goes on by itself: the inbox, and forgetting what is too old. Ends by cancellation."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.receiver.run)
            nursery.start_soon(self.transactions.run_edus)
            nursery.start_soon(self.catch_up.run)
            nursery.start_soon(self.resync.run)
            nursery.start_soon(self._forget_old)

    async def _forget_old(self) -> None:
        while True:
            await trio.sleep(3600)
            now = self.parts.now()

            def forget(tx: Tx, now: int = now) -> None:
                inbox.forget_answers(tx, now - 7 * _DAY_MS)
                client_txns.forget(tx, now - 2 * _DAY_MS)

            await self.parts.db.write(forget)

    # -- for clients -------------------------------------------------------------------------------

    async def create(self, creator: str, request: JsonObject) -> str:
        """POST /createRoom. Returns the room id.

        M_INVITE_BLOCKED, and no room, if one of our own users wants no invites. An invite that fails later is
        logged; the room stays.
        """
        parts = self.parts
        made = plan(
            request, creator=creator, our_name=parts.our_name, default_version=parts.default_room_version
        )
        for target in made.invites:
            self._users.check_may_invite(creator, target)
        room_id = await self.sending.create(creator, made, self._users.member_profile(creator))
        content: JsonObject = {"is_direct": True} if made.is_direct else {}
        for target in made.invites:
            try:
                await self.invites.invite(creator, room_id, target, content)
            except MatrixError as error:
                log.warning("an invite to a new room failed", room=room_id, user=target, error=str(error))
        return room_id

    async def send(
        self,
        sender: str,
        room_id: str,
        type: str,
        content: JsonObject,
        *,
        state_key: str | None = None,
        device_id: str | None = None,
        txn_id: str | None = None,
        scope: str = "send",
        redacts: str | None = None,
        ts: int | None = None,
    ) -> str:
        """Send an event or set state. Returns the event id."""
        if type == "m.room.member" and state_key is not None:
            return await self.put_membership(sender, room_id, state_key, content)
        if type == "m.room.redaction" and state_key is None and redacts is None:
            target = content.get("redacts")
            if not isinstance(target, str):
                raise bad_json("A redaction needs `redacts`.")
            return await self.redact(sender, room_id, target, content, device_id, txn_id, scope=scope)
        txn = None
        if device_id is not None and txn_id is not None:
            txn = ClientTxn(sender, device_id, f"{scope}/{room_id}/{type}", txn_id)
        return await self.sending.send(
            sender, room_id, type, content, state_key=state_key, redacts=redacts, txn=txn, ts=ts
        )

    async def redact(
        self,
        sender: str,
        room_id: str,
        target: str,
        content: JsonObject,
        device_id: str | None,
        txn_id: str | None,
        *,
        scope: str = "redact",
    ) -> str:
        """Redact an event; `content` is the redaction's, such as its reason."""
        stored = self.parts.graph.stored(target)
        if stored is not None and stored.event.room_id != room_id:
            raise not_found("There is no such event in this room.")
        version = self.parts.head(room_id).version if stored is None else stored.event.version
        content = {key: value for key, value in content.items() if key != "redacts"}
        if version.redacts_in_content:
            content["redacts"] = target
        txn = None
        if device_id is not None and txn_id is not None:
            txn = ClientTxn(sender, device_id, f"{scope}/{room_id}/{target}", txn_id)
        return await self.sending.send(
            sender,
            room_id,
            "m.room.redaction",
            content,
            redacts=None if version.redacts_in_content else target,
            txn=txn,
        )

    async def put_membership(self, sender: str, room_id: str, target: str, content: JsonObject) -> str:
        """PUT state m.room.member: what the verbs do, by hand."""
        membership = content.get("membership")
        if not is_user_id(target):
            raise invalid_param("The state key of m.room.member is a user id.")
        if membership == "invite" and target != sender:
            rest = {key: value for key, value in content.items() if key != "membership"}
            return await self.invites.invite(sender, room_id, target, rest)
        if not isinstance(membership, str):
            raise bad_json("membership must be a string.")
        if target == sender and membership in ("join", "leave", "knock"):
            held = memberships.get(self.parts.db.read, self._room_nid(room_id), sender)
            if held is None or held.membership != "join":
                await self._put_own(sender, room_id, membership, content)
                return self._member_event(room_id, sender)
        return await self.members.set_for(sender, room_id, target, membership, content)

    async def _put_own(self, user_id: str, room_id: str, membership: str, content: JsonObject) -> None:
        """Somebody who is not in the room comes in, wants to, or gives up an invite or knock."""
        reason = content.get("reason")
        reason = reason if isinstance(reason, str) else None
        if membership == "leave":
            await self.members.leave(user_id, room_id, reason)
        elif membership == "knock":
            await self.members.knock(user_id, room_id, (), reason)
        else:
            rest = {key: value for key, value in content.items() if key != "membership"}
            await self.members.join(user_id, room_id, (), rest)
            await self.following.follow(user_id, room_id)

    async def join(
        self,
        user_id: str,
        room_id_or_alias: str,
        *,
        via: Sequence[str] = (),
        content: JsonObject | None = None,
    ) -> str:
        """Returns the room id."""
        room_id, hosts = await self._find(room_id_or_alias, via)
        await self.members.join(user_id, room_id, hosts, content or {})
        await self.following.follow(user_id, room_id)
        return room_id

    async def knock(
        self, user_id: str, room_id_or_alias: str, *, via: Sequence[str] = (), reason: str | None = None
    ) -> str:
        room_id, hosts = await self._find(room_id_or_alias, via)
        await self.members.knock(user_id, room_id, hosts, reason)
        return room_id

    async def _find(self, room_id_or_alias: str, via: Sequence[str]) -> tuple[str, list[str]]:
        if is_room_alias(room_id_or_alias):
            room_id, hosts = await self.directory.resolve(room_id_or_alias)
            return room_id, list(dict.fromkeys([*via, *hosts]))
        if not is_room_id(room_id_or_alias):
            raise invalid_param("That is neither a room id nor a room alias.")
        return room_id_or_alias, list(via)

    async def leave(self, user_id: str, room_id: str, reason: str | None = None) -> None:
        await self.members.leave(user_id, room_id, reason)

    async def invite(self, sender: str, room_id: str, target: str, reason: str | None = None) -> str:
        return await self.invites.invite(
            sender, room_id, target, {} if reason is None else {"reason": reason}
        )

    async def kick(self, sender: str, room_id: str, target: str, reason: str | None = None) -> str:
        held = memberships.get(self.parts.db.read, self._room_nid(room_id), target)
        if held is None or held.membership in ("leave", "ban"):
            raise MatrixError(403, "M_FORBIDDEN", "That user is not in the room.")
        return await self.members.set_for(sender, room_id, target, "leave", _with_reason(reason))

    async def ban(self, sender: str, room_id: str, target: str, reason: str | None = None) -> str:
        return await self.members.set_for(sender, room_id, target, "ban", _with_reason(reason))

    async def unban(self, sender: str, room_id: str, target: str, reason: str | None = None) -> str:
        held = memberships.get(self.parts.db.read, self._room_nid(room_id), target)
        if held is None or held.membership != "ban":
            raise MatrixError(403, "M_FORBIDDEN", "That user is not banned from the room.")
        return await self.members.set_for(sender, room_id, target, "leave", _with_reason(reason))

    async def forget(self, user_id: str, room_id: str) -> None:
        await self.members.forget(user_id, room_id)

    async def update_profile(self, user_id: str) -> None:
        """Send the user's new profile to the rooms they are in. A room that refuses is logged, no more."""
        profile = self._users.member_profile(user_id)
        for held in memberships.of_user(self.parts.db.read, user_id):
            if held.membership != "join":
                continue
            room_id = self._room_id(held.room_nid)
            event_id = self._member_event(room_id, user_id)
            event = self.parts.graph.event(event_id)
            old = {} if event is None else event.content
            kept = {key: value for key, value in old.items() if key not in ("displayname", "avatar_url")}
            kept.pop("join_authorised_via_users_server", None)
            try:
                await self.members.set_for(user_id, room_id, user_id, "join", {**kept, **profile})
            except MatrixError as error:
                log.warning("a room did not take a new profile", room=room_id, user=user_id, error=str(error))

    async def backfill(self, room_id: str, *, before: tuple[int, int], limit: int) -> bool:
        """Ask other servers for events before (topo, arrival). True if something new was stored."""
        return await self.history.before(room_id, before[0], limit)

    async def fetch_at(self, room_id: str, ts: int, *, forward: bool, closer_than: int | None) -> bool:
        """Ask other servers for an event close to a point of time. True if something new was stored. Waits
        for the room's members, without whom no event of the past has a place; MatrixError if they don't come.
        """
        await self.parts.whole.wait(room_id)
        return await self.by_time.fetch(room_id, ts, forward=forward, closer_than=closer_than)

    async def resolve_alias(self, alias: str) -> tuple[str, list[str]]:
        return await self.directory.resolve(alias)

    async def set_alias(self, user_id: str, alias: str, room_id: str) -> None:
        await self.directory.set_alias(user_id, alias, room_id)

    async def delete_alias(self, user_id: str, alias: str, *, is_admin: bool = False) -> None:
        await self.directory.delete_alias(user_id, alias, is_admin=is_admin)

    def _room_nid(self, room_id: str) -> int:
        room_nid = rooms.room_nid(self.parts.db.read, room_id)
        if room_nid is None:
            raise MatrixError(403, "M_FORBIDDEN", "You are not joined to this room.")
        return room_nid

    def _room_id(self, room_nid: int) -> str:
        return rooms.room_ids(self.parts.db.read, [room_nid])[room_nid]

    def _member_event(self, room_id: str, user_id: str) -> str:
        held = memberships.get(self.parts.db.read, self._room_nid(room_id), user_id)
        nid = 0 if held is None else held.event_nid
        return events.ids_of(self.parts.db.read, [nid]).get(nid, "")


def _with_reason(reason: str | None) -> JsonObject:
    return {} if reason is None else {"reason": reason}
