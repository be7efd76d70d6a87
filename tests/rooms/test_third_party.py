# SPDX-License-Identifier: Apache-2.0
"""Invites by third-party identifier that are redeemed, here and through the server of who invited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.matrix.signatures import SigningKey, sign_json
from minihs.rooms.service import Rooms
from tests.rooms.world import World, membership_of, state_of, worlds

ALICE, BOB = "@alice:a.test", "@bob:b.test"
TOKEN = "token"
IDENTITY = SigningKey.generate(b"i" * 32, "0")


def signed(user_id: str = BOB, token: str = TOKEN, key: SigningKey = IDENTITY) -> Any:
    return sign_json({"mxid": user_id, "token": token}, "identity.test", key)


async def room_with_offer(a: Rooms) -> str:
    room_id = await a.create(ALICE, {"preset": "private_chat"})
    content = {
        "display_name": "b...@mail",
        "public_key": IDENTITY.verify_key_base64,
        "key_validity_url": "https://identity.test/valid",
        "public_keys": [{"public_key": IDENTITY.verify_key_base64}],
    }
    await a.send(ALICE, room_id, "m.room.third_party_invite", content, state_key="token")
    return room_id


def bound(room_id: str, sender: str = ALICE, **changes: Any) -> Any:
    """What an identity server sends."""
    invite = {
        "medium": "email",
        "address": "b@mail.test",
        "mxid": BOB,
        "room_id": room_id,
        "sender": sender,
        "signed": signed(),
        **changes,
    }
    return {"medium": "email", "address": "b@mail.test", "mxid": BOB, "invites": [invite]}


async def test_an_address_that_is_bound_is_invited_through_the_inviting_server(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        a, b, c = (world.servers[name] for name in ("a.test", "b.test", "c.test"))
        room_id = await room_with_offer(a)
        await a.invite(ALICE, room_id, "@carol:c.test")
        await c.join("@carol:c.test", room_id)
        await world.deliver()
        await b.third_party.bound(bound(room_id))
        assert membership_of(b, room_id, BOB) == "invite"
        await world.deliver()
        assert membership_of(c, room_id, BOB) == "invite"
        invite = a.parts.graph.event(state_of(a, room_id)["m.room.member", BOB])
        assert invite is not None
        assert invite.sender == ALICE
        assert invite.content["third_party_invite"]["display_name"] == "b...@mail"
        await b.join(BOB, room_id)
        await world.deliver()
        assert membership_of(a, room_id, BOB) == "join"


async def test_an_address_that_is_bound_is_invited_by_its_own_server_if_that_is_in_the_room(
    tmp_path: Path,
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await room_with_offer(a)
        await a.invite(ALICE, room_id, "@ben:b.test")
        await b.join("@ben:b.test", room_id)
        await world.deliver()
        await b.third_party.bound(bound(room_id))
        await world.deliver()
        for server in (a, b):
            assert membership_of(server, room_id, BOB) == "invite"
        assert ("b.test", "a.test", "exchange_third_party_invite") not in world.asked


async def test_who_is_in_the_room_already_stays_in_it(tmp_path: Path) -> None:
    """The auth rules would let the invite take the place of the join."""
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await room_with_offer(a)
        await a.invite(ALICE, room_id, BOB)
        await b.join(BOB, room_id)
        await world.deliver()
        await b.third_party.bound(bound(room_id))
        await world.deliver()
        with pytest.raises(MatrixError, match="in the room already"):
            await exchange(world, room_id)
        for server in (a, b):
            assert membership_of(server, room_id, BOB) == "join"


FORGED = SigningKey.generate(b"f" * 32, "0")
BAD_EXCHANGES: dict[str, Any] = {
    "a signature by nobody": {"signed": signed(key=FORGED)},
    "another token": {"signed": signed(token="other")},
    "another user": {"signed": signed("@mallory:b.test")},
    "no signature": {"signed": {"mxid": BOB, "token": "token"}},
    "nothing signed": {"signed": 5},
}


async def exchange(world: World, at: str, *, origin: str = "b.test", **changes: Any) -> None:
    invite = {"display_name": "b", "signed": changes.pop("signed", signed())}
    event = {
        "type": "m.room.member",
        "room_id": at,
        "sender": ALICE,
        "state_key": BOB,
        "content": {"membership": "invite", "third_party_invite": invite},
        **changes,
    }
    await world.servers["a.test"].third_party.exchange(origin, at, event)


@pytest.mark.parametrize("what", BAD_EXCHANGES)
async def test_an_exchange_that_the_identity_server_did_not_sign_is_refused(
    tmp_path: Path, what: str
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await room_with_offer(a)
        with pytest.raises(MatrixError) as refused:
            await exchange(world, room_id, **BAD_EXCHANGES[what])
        assert refused.value.status in (400, 403)
        assert membership_of(a, room_id, BOB) is None


BAD_EVENTS: dict[str, Any] = {
    "another room": {"room_id": "!other:a.test"},
    "another type": {"type": "m.room.message"},
    "a join": {"content": {"membership": "join", "third_party_invite": {"signed": signed()}}},
    "another sender": {"sender": "@anna:a.test"},
    "no sender": {"sender": None},
    "another server's user": {"origin": "c.test"},
}


@pytest.mark.parametrize("what", BAD_EVENTS)
async def test_an_exchange_for_another_event_is_refused(tmp_path: Path, what: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await room_with_offer(a)
        with pytest.raises(MatrixError):
            await exchange(world, room_id, **BAD_EVENTS[what])
        assert membership_of(a, room_id, BOB) is None


async def test_a_server_that_the_acl_denies_can_exchange_nothing(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await room_with_offer(a)
        await a.send(ALICE, room_id, "m.room.server_acl", {"allow": ["*"], "deny": ["b.test"]}, state_key="")
        with pytest.raises(MatrixError) as refused:
            await exchange(world, room_id)
        assert refused.value.errcode == "M_FORBIDDEN"


async def test_a_binding_that_leads_nowhere_harms_nobody(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        b = world.servers["b.test"]
        room_id = await room_with_offer(world.servers["a.test"])
        for invite in (
            bound("!nowhere:c.test", "@carol:c.test"),
            bound(room_id, signed=None),
            bound(room_id, sender=None),
            bound(room_id, signed=signed("@mallory:b.test")),
        ):
            await b.third_party.bound(invite)
        assert membership_of(b, room_id, BOB) is None
        with pytest.raises(MatrixError):
            await b.third_party.bound({**bound(room_id), "mxid": ALICE})
        with pytest.raises(MatrixError):
            await b.third_party.bound({**bound(room_id), "invites": [{}] * 21})


async def test_nobody_can_invite_in_anothers_name_unasked(tmp_path: Path) -> None:
    """Such an invite needs no signature of its sender: only the server that was asked may send it."""
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await room_with_offer(a)
        sent: list[Any] = []

        async def hook(honest: Any, asker: str, *args: Any) -> Any:
            sent.append(args)
            return await honest()

        world.hooks["b.test", "invite"] = hook
        await exchange(world, room_id)
        (_, event_id, version, pdu, stripped) = sent[0]
        with pytest.raises(MatrixError) as refused:
            await b.invites.receive("c.test", room_id, event_id, version, pdu, stripped)
        assert refused.value.errcode == "M_INVALID_PARAM"
