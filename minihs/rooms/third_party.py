# SPDX-License-Identifier: Apache-2.0
"""Invites by third-party identifier that are redeemed (spec: server-server-api, "Third-party invites").

Somebody invited an e-mail address; the room holds an m.room.third_party_invite event with a token and the
identity server's keys. When the address is bound to a Matrix id, the identity server tells the server of that
user (onbind), which has the real invite made: in the room, if it is in it, else by the server of who invited
(exchange_third_party_invite). The identity server's signature over token and user is what the auth rules
check; the invite needs no signature of its sender.
"""

from __future__ import annotations

from typing import Any

import structlog

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import domain_of, fits, is_room_id, is_user_id
from minihs.rooms.acl import Acls
from minihs.rooms.handshake import candidates
from minihs.rooms.invites import Invites
from minihs.rooms.parts import Parts
from minihs.rooms.ports import LocalUsers
from minihs.rooms.publish import publish
from minihs.rooms.state import StateMap
from minihs.store import rooms

log = structlog.get_logger()

MAX_BOUND = 20
"""Invites taken from one notification."""


class ThirdParty:
    def __init__(self, parts: Parts, acls: Acls, invites: Invites, users: LocalUsers) -> None:
        self._parts = parts
        self._acls = acls
        self._invites = invites
        self._users = users

    # -- for other servers -------------------------------------------------------------------------

    async def exchange(self, origin: str, room_id: str, body: JsonObject) -> None:
        """PUT /exchange_third_party_invite: make the invite of a user of the asking server."""
        sender, target, content = body.get("sender"), body.get("state_key"), body.get("content")
        if body.get("type") != "m.room.member" or body.get("room_id", room_id) != room_id:
            raise invalid_param("The event is no membership of the room in the path.")
        if not is_user_id(sender) or not is_user_id(target) or not isinstance(content, dict):
            raise bad_json("sender and state_key must be user ids, content an object.")
        if content.get("membership") != "invite":
            raise invalid_param("The event is no invite.")
        if domain_of(target) != origin:
            raise forbidden("A server asks for its own users only.")
        signed = signed_part(content)
        head = self._parts.head(room_id)
        self._acls.require(room_id, origin)
        if head.partial is not None:
            raise MatrixError(404, "M_NOT_FOUND", "This server does not know all members of the room yet.")
        state = head.state(self._parts.graph)
        offer = state.get(("m.room.third_party_invite", signed["token"]))
        if offer is None or offer.sender != sender or signed["mxid"] != target:
            raise forbidden("There is no such third-party invite in the room.")
        if is_joined(state, target):
            raise forbidden("The user is in the room already.")
        name = offer.content.get("display_name")
        invite = {"display_name": name if isinstance(name, str) else "", "signed": signed}
        await self._invites.invite(sender, room_id, target, {"third_party_invite": invite})

    # -- for identity servers ----------------------------------------------------------------------

    async def bound(self, body: JsonObject) -> None:
        """PUT /3pid/onbind: one of our users now has an address that was invited.

        Nobody can tell who asks; what comes of it is at most an invite that the identity server has signed.
        """
        user_id, invites = body.get("mxid"), body.get("invites", [])
        if not is_user_id(user_id) or not self._parts.is_ours(user_id) or not self._users.exists(user_id):
            raise invalid_param("mxid is no user of this server.")
        if not isinstance(invites, list) or len(invites) > MAX_BOUND:
            raise bad_json(f"invites must be a list of at most {MAX_BOUND}.")
        for invite in invites:
            try:
                await self._redeem(user_id, invite)
            except (MatrixError, FederationError) as error:
                log.info("could not redeem a third-party invite", user=user_id, reason=str(error))

    async def _redeem(self, user_id: str, invite: Any) -> None:
        room_id = invite.get("room_id") if isinstance(invite, dict) else None
        sender = invite.get("sender") if isinstance(invite, dict) else None
        if not is_room_id(room_id) or not is_user_id(sender):
            raise bad_json("An invite needs room_id and sender.")
        signed = signed_part({"third_party_invite": invite})
        if signed["mxid"] != user_id:
            raise forbidden("The invite is signed for somebody else.")
        self._users.check_may_invite(sender, user_id)
        name = invite.get("display_name")
        content: JsonObject = {
            "membership": "invite",
            "third_party_invite": {
                "display_name": name if isinstance(name, str) and fits(name) else "",
                "signed": signed,
            },
        }
        await self._parts.tasks.run(
            f"third-party invite of {user_id} to {room_id}",
            lambda: self._take_or_exchange(room_id, sender, user_id, content),
        )

    async def _take_or_exchange(self, room_id: str, sender: str, target: str, content: JsonObject) -> None:
        room = rooms.get(self._parts.db.read, room_id)
        if room is not None and room.resident:
            await self._parts.whole.wait(room_id)
            await self._parts.tasks.run(
                room_id, lambda: self._take(room_id, sender, target, content), between=True
            )
            return
        token = content["third_party_invite"]["signed"]["token"]
        event = {
            "type": "m.room.member",
            "room_id": room_id,
            "sender": sender,
            "state_key": target,
            "content": content,
        }
        of_room = [room_id.partition(":")[2]] if ":" in room_id else []
        with self._invites.expect_third_party(room_id, token):
            for host in candidates(self._parts, [domain_of(sender)], of_room):
                try:
                    await self._parts.federation.exchange_third_party_invite(host, room_id, event)
                except FederationError as error:
                    log.info("could not exchange a third-party invite", host=host, error=str(error))
                else:
                    return

    async def _take(self, room_id: str, sender: str, target: str, content: JsonObject) -> None:
        head = self._parts.head(room_id)
        if is_joined(head.state(self._parts.graph), target):
            return
        content = {**self._users.member_profile(target), **content}
        await publish(
            self._parts, head, sender=sender, type="m.room.member", state_key=target, content=content
        )


def is_joined(state: StateMap, user_id: str) -> bool:
    """The auth rules let such an invite take somebody out of the room, which they let no other invite do."""
    member = state.get(("m.room.member", user_id))
    return member is not None and member.membership == "join"


def signed_part(content: JsonObject) -> JsonObject:
    """What the identity server signed, with token and mxid as strings. Raises M_BAD_JSON."""
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if (
        not isinstance(signed, dict)
        or not isinstance(signed.get("token"), str)
        or not fits(signed["token"])
        or not is_user_id(signed.get("mxid"))
        or not isinstance(signed.get("signatures"), dict)
    ):
        raise bad_json("third_party_invite.signed needs mxid, token and signatures.")
    return signed
