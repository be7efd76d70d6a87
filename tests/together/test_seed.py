# SPDX-License-Identifier: Apache-2.0
"""A server of 2018, by the server-server API of that July: what it sends is answered, in the form of then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.federation import x_matrix
from minihs.matrix import canonical, unpadded
from minihs.matrix.hashes import with_content_hash
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import sign_event
from tests.together.kit import MALLORY, V1, Scene, scene, seg, with_mallory

V1_ROOM = ROOM_VERSIONS["1"]


async def ask(at: Scene, method: str, uri: str, content: Any = None) -> tuple[int, Any]:
    """A request as it was signed then: without destination and quotes in the header."""
    message = x_matrix.signed_bytes(
        method=method,
        uri=uri,
        origin="peer.test",
        destination="one.test",
        content=None if content is None else canonical.encode(content),
    )
    signature = unpadded.encode(at.peer.key.sign(message))
    header = f'X-Matrix origin=peer.test,key="{at.peer.key.key_id}",sig="{signature}"'
    return await at.peer.request(method, "one.test", uri, content, headers=[("Authorization", header)])


def old_event(at: Scene, proto: Any, event_id: str, type: str, content: Any, **changes: Any) -> Any:
    """An event of a room of version 1 or 2 with all that events had then, hashed and signed."""
    fields = {
        "room_id": proto["room_id"],
        "auth_events": proto["auth_events"],
        "prev_events": proto["prev_events"],
        "depth": proto["depth"],
        "sender": MALLORY,
        "origin": "peer.test",
        "origin_server_ts": at.world.clock.now_ms(),
        "prev_state": [],
        "event_id": event_id,
        "type": type,
        "content": content,
        **changes,
    }
    signed = sign_event(with_content_hash(fields), V1_ROOM, "peer.test", at.peer.key)
    return {**signed, "unsigned": {"age": 5, "age_ts": 1_530_000_000_000}}


@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_old_server_comes_talks_invites_and_goes(tmp_path: Path, version: str) -> None:
    async with scene(tmp_path) as at:
        prints = [{"sha256": "x" * 43}]
        at.peer.on("GET", "/_matrix/key/v2/server", lambda _: at.peer.key_document(tls_fingerprints=prints))
        room = await at.alice.create_room(preset="public_chat", room_version=version)
        # Only servers that know of other versions than 1 ask for them.
        query = "" if version == "1" else "?ver=1&ver=2"
        status, answer = await ask(at, "GET", f"{V1}/make_join/{room}/{MALLORY}{query}")
        assert status == 200, answer
        proto = answer["event"]
        assert proto["origin"] == "one.test"
        join = old_event(
            at, proto, "$join:peer.test", "m.room.member", {"membership": "join"}, state_key=MALLORY
        )
        status, answer = await ask(at, "PUT", f"{V1}/send_join/{room}/$join:peer.test", join)
        assert (status, answer[0]) == (200, 200)
        assert {"m.room.create", "m.room.power_levels"} <= {pdu["type"] for pdu in answer[1]["state"]}
        assert answer[1]["auth_chain"]

        allowing = ("m.room.create", "m.room.power_levels")
        auth = [[pdu["event_id"], {}] for pdu in answer[1]["state"] if pdu["type"] in allowing]
        said = {**proto, "depth": proto["depth"] + 1, "prev_events": [["$join:peer.test", {}]]}
        said["auth_events"] = [*auth, ["$join:peer.test", {}]]
        message = old_event(at, said, "$said:peer.test", "m.room.message", {"body": "as of old"})
        transaction = {
            "transaction_id": "another",
            "origin": "peer.test",
            "destination": "one.test",
            "origin_server_ts": 1_530_000_000_000,
            "previous_ids": ["before"],
            "pdus": [message],
            "pdu_failures": [],
        }
        status, answer = await ask(at, "PUT", f"{V1}/send/1530000000000/", transaction)
        assert (status, answer) == (200, {"pdus": {"$said:peer.test": {}}})
        await trio.sleep(1)
        (_, answer) = await ask(at, "GET", f"{V1}/event/$said:peer.test/")
        (pdu,) = answer["pdus"]
        assert pdu == {key: value for key, value in message.items() if key != "unsigned"}

        anna = await at.world["one.test"].user("anna")
        proto = {**said, "prev_events": [["$said:peer.test", {}]]}
        invite = old_event(
            at,
            proto,
            "$invite:peer.test",
            "m.room.member",
            {"membership": "invite"},
            state_key=anna.user_id,
        )
        status, answer = await ask(at, "PUT", f"{V1}/invite/{room}/$invite:peer.test", invite)
        assert (status, answer[0]) == (200, 200), answer
        assert set(answer[1]["event"]["signatures"]) == {"peer.test", "one.test"}
        assert room in (await anna.sync())["rooms"]["invite"]

        status, answer = await ask(at, "GET", f"{V1}/make_leave/{room}/{MALLORY}")
        leave = old_event(
            at,
            answer["event"],
            "$leave:peer.test",
            "m.room.member",
            {"membership": "leave"},
            state_key=MALLORY,
        )
        uri = f"{V1}/send_leave/{room}/$leave:peer.test"
        assert await ask(at, "PUT", uri, leave) == (200, [200, {}])
        shown = await at.alice.sync()
        timeline = shown["rooms"]["join"][room]["timeline"]["events"]
        assert [event["event_id"] for event in timeline if event["sender"] == MALLORY] == [
            "$join:peer.test",
            "$said:peer.test",
            "$invite:peer.test",
            "$leave:peer.test",
        ]


async def test_edus_are_taken_in_the_envelope_of_then(tmp_path: Path) -> None:
    """They said from whom and to whom. Presence was asked for and granted; nobody answers that any more."""
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        await at.alice.sync(set_presence="offline")
        pair = {"observed_user": at.alice.user_id, "observer_user": MALLORY}
        online = {"user_id": MALLORY, "presence": "online", "last_active_ago": 1000}
        free = {"user_id": MALLORY, "presence": "free_for_chat"}
        to_devices = {
            "sender": MALLORY,
            "type": "m.room_key_request",
            "message_id": "m1",
            "messages": {at.alice.user_id: {"*": {"n": 1}}},
        }
        edus = [
            ("m.presence_invite", pair),
            ("m.presence_accept", pair),
            ("m.presence_deny", pair),
            ("m.presence", {"push": [online], "poll": [at.alice.user_id], "unpoll": [at.alice.user_id]}),
            ("m.presence", {"push": [free]}),
            ("m.typing", {"room_id": room, "user_id": MALLORY, "typing": True}),
            ("m.direct_to_device", to_devices),
        ]
        envelopes = [
            {"edu_type": kind, "origin": "peer.test", "destination": "one.test", "content": content}
            for kind, content in edus
        ]
        body = {"origin": "peer.test", "origin_server_ts": 0, "pdus": [], "edus": envelopes}
        assert await ask(at, "PUT", f"{V1}/send/1/", body) == (200, {"pdus": {}})
        await trio.sleep(1)
        shown = await at.alice.sync(set_presence="offline")
        assert [event["content"]["presence"] for event in shown["presence"]["events"]] == ["online"]
        assert [event["content"] for event in shown["to_device"]["events"]] == [{"n": 1}]
        (typing,) = shown["rooms"]["join"][room]["ephemeral"]["events"]
        assert typing["content"] == {"user_ids": [MALLORY]}


async def test_what_is_not_answered_any_more_says_so(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        for uri in ("/_matrix/key/v1/", f"{V1}/pull/?origin=peer.test&v=1"):
            status, answer = await ask(at, "GET", uri)
            assert (status, answer["errcode"]) == (404, "M_UNRECOGNIZED"), uri
        # The state of now, which no event names, is nobody's to check.
        status, answer = await ask(at, "GET", f"{V1}/state/{seg(room)}/")
        assert (status, answer["errcode"]) == (400, "M_MISSING_PARAM")
