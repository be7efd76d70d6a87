# SPDX-License-Identifier: Apache-2.0
"""PDUs that are almost valid, by every path on which we are sent them. What we ask for: test_gaps.py, and
test_joins.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, note
from hypothesis import strategies as st

from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SigningKey, sign_json
from minihs.testing.events import RoomFactory
from tests.advisories.kit import ALICE, MALLORY, V1, V2, seg
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.events import signed
from tests.fuzz.strategies import (
    Answered,
    Body,
    JsonObject,
    Pdu,
    bodies,
    edited,
    mostly_right_answers,
    mostly_right_bodies,
    pdus,
    spoiled,
    versions,
)
from tests.fuzz.target import Target

IDENTITY = SigningKey.generate(b"i" * 32, "0")
THIRD_PARTY_ROOM = "a room with a third-party invite"


@fuzz(12)
@given(version=versions, cases=st.lists(pdus(), min_size=2, max_size=8))
def test_in_a_transaction(arena: Arena, version: str, cases: Sequence[Pdu]) -> None:
    async def attack(target: Target) -> None:
        await target.room(version)
        sent = [target.pdu(case) for case in cases]
        await target.send(sent)
        for pdu in sent:
            outcome = target.siege.outcome(target.id_of(pdu))
            note(f"{outcome}: {pdu}"[:500])

    arena.run(attack, cases=len(cases))


WAYS = [
    *((V1, "send_join", "join"), (V2, "send_join", "join"), (V1, "send_leave", "leave")),
    *(
        (V2, "send_leave", "leave"),
        (V1, "send_knock", "knock"),
        (V1, "invite", "invite"),
        (V2, "invite", "invite"),
    ),
]
event_ids = (
    st.none() | st.none() | st.none() | st.sampled_from(["$", "$x", "x", "", "$" + "A" * 43, "\0", "%"])
)


@st.composite
def attempts(draw: st.DrawFn) -> tuple[tuple[str, str, str], Pdu, Body, str | None]:
    way = draw(st.sampled_from(WAYS))
    return way, draw(pdus(way[2])), draw(mostly_right_bodies), draw(event_ids)


@fuzz(10)
@given(version=versions, tries=st.lists(attempts(), min_size=2, max_size=5))
def test_handed_in_as_a_membership(arena: Arena, version: str, tries: Sequence[Any]) -> None:
    async def attack(target: Target) -> None:
        for each in tries:
            await hand_in(target, version, *each)
        await target.send([])

    arena.run(attack, cases=len(tries))


async def hand_in(
    target: Target, version: str, way: tuple[str, str, str], case: Pdu, body: Body, event_id: str | None
) -> None:
    api, verb, kind = way
    rule = "knock" if kind == "knock" and ROOM_VERSIONS[version].knock else "public"
    place = await target.room(version, rule)
    good = target.base(kind)
    if kind == "leave":
        user = good["sender"]
        await target.siege.send(target.siege.member({"membership": "join"}, user))
        good = target.siege.draft("m.room.member", {"membership": "leave", "reason": "x"}, user, sender=user)
    elif kind == "invite":
        good = {**good, "state_key": ALICE}
    pdu = target.pdu(case, good)
    content: Any = pdu
    if (api, verb) == (V2, "invite"):
        content = {"room_version": version, "event": pdu, "invite_room_state": []}
    elif verb == "invite" and isinstance(pdu, dict):
        content = {**pdu, "unsigned": {"invite_room_state": []}}
    uri = f"{api}/{verb}/{seg(place.room_id)}/{seg(target.id_of(pdu) if event_id is None else event_id)}"
    await target.ask("PUT", uri, body.of(content))
    await target.siege.rest()


@fuzz(10)
@given(api=st.sampled_from([V1, V2]), version=versions, case=pdus(), data=st.data())
def test_an_invite_to_a_room_that_we_do_not_know(
    arena: Arena, api: str, version: str, case: Pdu, data: st.DataObject
) -> None:
    """With what is shown of the room: its create event counts in version 12."""
    shown = data.draw(st.lists(pdus(), max_size=2))
    shown_body = data.draw(mostly_right_bodies)

    async def attack(target: Target) -> None:
        await target.room(version)
        room = RoomFactory(version, MALLORY, name=f"r{next(target.numbers)}")
        good = room.build(MALLORY, "m.room.member", {"membership": "invite"}, ALICE).json
        pdu = target.pdu(case, {key: good[key] for key in good if key not in ("hashes", "signatures")})
        stripped: list[Any] = [event.json for event in room.state.values()]
        for each in shown:
            stripped = edited([*stripped, stripped[0]], each.edits)
            if not isinstance(stripped, list) or not stripped:
                break
        if api == V2:
            content: Any = {"room_version": version, "event": pdu, "invite_room_state": stripped}
        else:
            content = {**pdu, "unsigned": {"invite_room_state": stripped}} if isinstance(pdu, dict) else pdu
        uri = f"{api}/invite/{seg(str(room.room_id))}/{seg(target.id_of(pdu))}"
        status, _ = await target.ask("PUT", uri, shown_body.of(content))
        if status == 200:
            await target.siege.alice.sync()
            await target.client("POST", f"/rooms/{seg(str(room.room_id))}/leave", {})

    arena.run(attack, cases=1 + len(shown) + spoiled(shown_body))


@fuzz(5)
@given(
    version=versions, body=bodies, path=st.sampled_from(["exchange", "onbind"]), answer=mostly_right_answers
)
def test_a_third_party_invite(arena: Arena, version: str, body: Body, path: str, answer: Answered) -> None:
    async def attack(target: Target) -> None:
        place = await target.room(version)
        offer = {
            "display_name": "m...",
            "key_validity_url": "https://i.test/v",
            "public_key": IDENTITY.verify_key_base64,
        }
        if ("m.room.third_party_invite", "token") not in target.siege.state():
            offer["public_keys"] = [{"public_key": IDENTITY.verify_key_base64}]
            await target.siege.alice.set_state(place.room_id, "m.room.third_party_invite", offer, "token")
        user = f"@friend{next(target.numbers)}:peer.test" if path == "exchange" else ALICE
        invite: JsonObject = {
            "display_name": "m...",
            "signed": sign_json({"mxid": user, "token": "token"}, "i.test", IDENTITY),
        }

        def countersign(received: Any) -> Any:
            return {"event": signed(target.siege, received.json["event"], target.peer.key)}

        target.on("PUT", f"{V2}/invite/", countersign, answer)
        if path == "exchange":
            event = {
                "type": "m.room.member",
                "room_id": place.room_id,
                "sender": ALICE,
                "state_key": user,
                "content": {"membership": "invite", "third_party_invite": invite},
            }
            uri = f"{V1}/exchange_third_party_invite/{seg(place.room_id)}"
            await target.ask("PUT", uri, body.of(event), has_us_ask=True)
        else:
            room_id = place.room_id if next(target.numbers) % 2 else "!elsewhere:peer.test"
            bound = {
                **invite,
                "medium": "email",
                "address": "a@b.c",
                "room_id": room_id,
                "sender": MALLORY,
                "mxid": user,
            }
            content = {"medium": "email", "address": "a@b.c", "mxid": user, "invites": [bound]}
            await target.ask("PUT", f"{V1}/3pid/onbind", body.of(content))
        await target.send([])

    arena.run(attack, cases=1 + spoiled(answer))


@fuzz(4)
@given(version=versions, case=pdus("invite"), answer=mostly_right_answers)
def test_our_own_invite_as_the_invited_server_gives_it_back(
    arena: Arena, version: str, case: Pdu, answer: Answered
) -> None:
    async def attack(target: Target) -> None:
        place = await target.room(version)
        friend = f"@friend{next(target.numbers)}:peer.test"

        def give_back(received: Any) -> Any:
            if "/v1/" in received.path:
                return [200, {"event": target.pdu(case, received.json)}]
            ours = received.json["event"]
            return {"event": target.pdu(case, {key: ours[key] for key in ours if key != "hashes"})}

        target.on("PUT", f"{V2}/invite/", give_back, answer)
        target.on("PUT", f"{V1}/invite/", give_back, answer)
        await target.client("POST", f"/rooms/{seg(place.room_id)}/invite", {"user_id": friend})
        await target.send([])

    arena.run(attack, cases=1 + spoiled(answer))
