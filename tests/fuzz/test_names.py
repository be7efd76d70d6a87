# SPDX-License-Identifier: Apache-2.0
"""Server names that are almost some, wherever a stranger's text is read as one, and finding servers by
.well-known and SRV records that are almost right."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from minihs.federation.network import Srv
from minihs.testing.hostile import Reply
from tests.advisories.kit import V1, V2, seg
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.strategies import (
    NAMES,
    Answered,
    TextEdit,
    answers,
    mostly_right_answers,
    names,
    spoiled,
    text_edits,
)
from tests.fuzz.target import Target
from tests.fuzz.test_joins import peers_room, template

PIECES = ["[", "]", "//", "@", "\\", "%", ":", ":99999999", "http", "#", "?", " ", "é", "[::1", *NAMES]
WELL_KNOWN = "/.well-known/matrix/server"
ALIAS = "#x:peer.test"


@fuzz(10)
@given(
    cases=st.lists(st.tuples(names, st.integers(0, 11)), min_size=2, max_size=4),
    version=st.sampled_from(["1", "11"]),
)
def test_a_name(arena: Arena, cases: Sequence[tuple[str, int]], version: str) -> None:
    async def attack(target: Target) -> None:
        for name, place in cases:
            await use(target, name, place, version)

    arena.run(attack, cases=len(cases))


async def use(target: Target, name: str, place: int, version: str) -> None:
    at = await target.room(version)
    part = quote(name.encode("utf-8", "surrogatepass"), safe="")
    match place:
        case 0:
            uri = f"{V1}/query/profile?user_id=@alice:one.test"
            header = f'X-Matrix origin="{name}",key="ed25519:1",sig="{"x" * 86}"'
            if header.isprintable() and header.isascii():
                await target.ask("GET", uri, headers=[("Authorization", header)])
        case 1:
            await target.ask("GET", f"/_matrix/key/v2/query/{part}", headers=[])
        case 2:
            await target.client("GET", f"/profile/@x:{part}")
        case 3:
            await target.client("POST", f"/join/%21x%3A{part}?server_name={part}", {})
        case 4:
            await target.client("GET", f"/directory/room/%23x%3A{part}")
        case 5:
            await target.client("GET", f"/_matrix/client/v1/media/download/{part}/id")
        case 6:
            await target.client("POST", f"/publicRooms?server={part}", {})
        case 7:
            await target.client("POST", f"/rooms/{seg(at.room_id)}/invite", {"user_id": f"@x:{name}"})
        case 8:
            room = peers_room(target, version)
            state = [event.json for event in room.state.values()]
            chain = [event.json for event in room.events.values()]
            answer = {"state": state, "auth_chain": chain, "members_omitted": True, "servers_in_room": [name]}
            target.on("GET", f"{V1}/make_join/", template(room, "join"))
            target.on("PUT", f"{V2}/send_join/", answer)
            path = seg(str(room.room_id))
            status, _ = await target.client("POST", f"/join/{path}?server_name=peer.test", {})
            if status == 200:
                await target.client("POST", f"/rooms/{path}/send/m.room.message/1", {})
                await target.client("POST", f"/rooms/{path}/leave", {})
        case 9:
            found = {"room_id": f"!x:{name}", "servers": [name, "peer.test"]}
            target.on("GET", f"{V1}/query/directory", found)
            await target.client("POST", f"/join/{seg(ALIAS)}", {})
        case 10:
            content = {"room_id": at.room_id, "user_id": f"@x:{name}", "typing": True}
            update = {"user_id": f"@x:{name}", "device_id": "D", "stream_id": 1, "prev_id": []}
            edus = [
                ("m.typing", content),
                ("m.device_list_update", update),
                ("m.presence", {"push": [content]}),
            ]
            await target.send([], [{"edu_type": kind, "content": each} for kind, each in edus])
        case _:
            user = f"@x:{name}"
            member = target.siege.draft("m.room.member", {"membership": "join"}, user, sender=user)
            invite = target.siege.draft("m.room.member", {"membership": "invite"}, user)
            await target.send([target.siege.seal(member), target.siege.seal(invite)])


@fuzz(10)
@given(
    answer=answers | mostly_right_answers,
    server=st.none() | names,
    edits=st.lists(text_edits(PIECES), max_size=3),
    redirected=st.booleans(),
)
def test_a_well_known_document(
    arena: Arena, answer: Answered, server: str | None, edits: Sequence[TextEdit], redirected: bool
) -> None:
    """The document, or where it is said to be."""

    async def attack(target: Target) -> None:
        text = "https://peer.test:8448/x" if redirected else "peer.test:8448"
        for each in edits:
            text = each.apply(text)
        front = target.stranger(f"w{next(target.numbers)}.test", port=443)
        if redirected:
            place = "".join(letter for letter in text if letter.isprintable() and ord(letter) < 256).strip()
            target.sent.append(place)
            front.on("GET", WELL_KNOWN, Reply(302, headers=[("Location", place)]))
        else:
            document = {"m.server": text if server is None else server}
            front.on("GET", WELL_KNOWN, target.spoiled(document, answer))
        await target.client("GET", f"/profile/@x:{front.name}")

    arena.run(attack, cases=spoiled(edits) if redirected else spoiled(answer, edits))


records = st.builds(
    Srv,
    st.sampled_from([0, 10, 65535]),
    st.sampled_from([0, 1, 65535]),
    st.sampled_from([0, 1, 8448, 65535]),
    names | st.just("peer.test"),
)


@fuzz(4)
@given(
    first=st.lists(records, max_size=4),
    second=st.lists(records, max_size=2),
    ttl=st.sampled_from([0, 1, 2**31]),
)
def test_srv_records(arena: Arena, first: Sequence[Srv], second: Sequence[Srv], ttl: int) -> None:
    async def attack(target: Target) -> None:
        name = f"s{next(target.numbers)}.test"
        dns = target.siege.world.internet.dns
        dns.add_srv(f"_matrix-fed._tcp.{name}", *first, ttl=ttl)
        dns.add_srv(f"_matrix._tcp.{name}", *second, ttl=ttl)
        await target.client("GET", f"/profile/@x:{name}")

    arena.run(attack)
