# SPDX-License-Identifier: Apache-2.0
"""Requests by other servers: whose signature is believed, for what."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from werkzeug.datastructures import Headers

from minihs.federation.keyring import Keyring
from minihs.federation.own_keys import OwnKeys
from minihs.federation.request_auth import RequestAuth
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError
from minihs.matrix.signatures import SigningKey
from minihs.testing.hostile import KEY_PATH, Reply, ScriptedPeer
from tests.federation.kit import Caller

URI = "/_matrix/federation/v1/send/a%2Fb?x=%20"
CONTENT: JsonObject = {"pdus": [], "ü": 1.5}


class World:
    def __init__(self, us: Caller) -> None:
        self.heard: list[str] = []
        self.keyring = Keyring(OwnKeys(us.name, us.key, us.runtime.clock), us.db, us.runtime, us.client)
        self.auth = RequestAuth(us.name, self.keyring, self.heard.append)
        self.peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)

    async def check(self, *headers: str, method: str = "PUT", uri: str = URI, content: Any = CONTENT) -> str:
        found = Headers([("Authorization", header) for header in headers])
        return await self.auth.authenticate(method, uri, found, content)

    def sign(self, **changes: Any) -> str:
        arguments = {"method": "PUT", "destination": "us.test", "uri": URI, "content": CONTENT, **changes}
        return self.peer.authorization(**arguments)


@pytest.fixture
async def world(us: Caller) -> World:
    return World(us)


async def refused(world: World, *headers: str, **changes: Any) -> MatrixError:
    with pytest.raises(MatrixError) as caught:
        await world.check(*headers, **changes)
    assert (caught.value.status, caught.value.errcode) == (401, "M_UNAUTHORIZED")
    assert world.heard == []
    return caught.value


async def test_a_rightly_signed_request_is_of_its_origin(world: World) -> None:
    assert await world.check(world.sign()) == "peer.test"
    assert world.heard == ["peer.test"]


async def test_a_request_without_a_body_is_signed_without_content(world: World) -> None:
    header = world.sign(method="GET", content=None)
    assert await world.check(header, method="GET", content=None) == "peer.test"


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "POST"},
        {"uri": URI + "&y=1"},
        {"uri": "/_matrix/federation/v1/send/a/b?x=%20"},
        {"uri": URI.replace("%2F", "%2f")},
        {"content": {"pdus": [], "ü": 1.25}},
        {"content": {}},
        {"content": None},
    ],
    ids=repr,
)
async def test_a_signature_for_anything_else_does_not_hold(world: World, changes: dict[str, Any]) -> None:
    await refused(world, world.sign(**changes))


async def test_a_request_signed_for_another_server_is_refused(world: World) -> None:
    await refused(world, world.sign(destination="third.test"))
    # As it was signed for the other server, but readdressed.
    await refused(world, world.sign(destination="third.test").replace("third.test", "us.test"))
    # And without saying for whom.
    await refused(world, world.sign(destination="third.test").replace('destination="third.test",', ""))


async def test_an_old_server_that_does_not_say_the_destination_is_believed(world: World) -> None:
    assert await world.check(world.sign().replace('destination="us.test",', "")) == "peer.test"


async def test_a_request_that_is_not_signed_is_refused(world: World) -> None:
    await refused(world)
    await refused(world, "Bearer abc")
    await refused(world, "X-Matrix nonsense")


@pytest.mark.parametrize("origin", ["us.test", "", "a b", "peer.test/", "é.test", "x" * 300])
async def test_an_origin_that_cannot_be_is_refused(world: World, origin: str) -> None:
    await refused(world, world.sign().replace('origin="peer.test"', f'origin="{origin}"'))


async def test_what_we_signed_ourselves_is_no_request_of_another_server(world: World, us: Caller) -> None:
    mirror = ScriptedPeer(us.internet, us.name, clock=us.clock)
    await refused(world, mirror.authorization("PUT", us.name, URI, CONTENT, key=us.key))


async def test_another_server_cannot_speak_in_its_name(world: World) -> None:
    world.peer.key = SigningKey.generate(b"\7" * 32, "scripted")
    header = world.sign()
    world.peer.key = SigningKey.generate(b"\10" * 32, "scripted")
    await refused(world, header)


async def test_of_several_signatures_one_that_holds_is_enough(world: World, us: Caller) -> None:
    unknown = SigningKey.generate(b"\11" * 32, "new")
    good, other = world.sign(), world.sign(key=unknown)
    assert await world.check(other, good) == "peer.test"
    assert await world.check("Bearer x", good) == "peer.test"
    with pytest.raises(MatrixError):
        await world.check(other)


async def test_signatures_of_different_servers_on_one_request_are_refused(world: World, us: Caller) -> None:
    second = ScriptedPeer(us.internet, "second.test", clock=us.clock)
    await refused(world, world.sign(), second.authorization("PUT", "us.test", URI, CONTENT))


async def test_more_signatures_than_make_sense_are_refused(world: World) -> None:
    await refused(world, *[world.sign()] * 6)


async def test_a_key_that_is_no_longer_in_use_signs_no_requests(world: World) -> None:
    world.peer.on(
        "GET",
        KEY_PATH,
        lambda _: world.peer.key_document(
            verify_keys={world.peer.key.key_id: {"key": world.peer.key.verify_key_base64}}
        ),
    )
    retired = SigningKey.generate(b"\12" * 32, "old")
    world.peer.on(
        "GET",
        KEY_PATH,
        lambda _: world.peer.key_document(
            old_verify_keys={
                "ed25519:old": {"key": retired.verify_key_base64, "expired_ts": world.peer.clock.now_ms() - 1}
            }
        ),
    )
    await refused(world, world.sign(key=retired))
    assert await world.check(world.sign()) == "peer.test"


async def test_a_server_whose_keys_are_not_to_be_had_is_not_believed(world: World) -> None:
    world.peer.on("GET", KEY_PATH, Reply(500))
    await refused(world, world.sign())
    # It is asked again soon: that it calls us shows that it lives.
    world.peer.on("GET", KEY_PATH, lambda _: world.peer.key_document())
    await trio.sleep(15)
    assert await world.check(world.sign()) == "peer.test"


async def test_unknown_key_ids_do_not_make_us_ask_again_and_again(world: World) -> None:
    assert await world.check(world.sign()) == "peer.test"
    world.heard.clear()
    await trio.sleep(60)
    for number in range(50):
        stranger = SigningKey.generate(bytes([number]) * 32, f"k{number}")
        await refused(world, world.sign(key=stranger))
    assert len(world.peer.received(KEY_PATH)) <= 2


async def test_a_new_key_is_found_when_the_server_uses_it(world: World) -> None:
    assert await world.check(world.sign()) == "peer.test"
    world.peer.key = SigningKey.generate(b"\13" * 32, "rotated")
    await trio.sleep(60)
    assert await world.check(world.sign()) == "peer.test"
