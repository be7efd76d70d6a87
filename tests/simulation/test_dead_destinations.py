# SPDX-License-Identifier: Apache-2.0
"""A room of fifty servers of which twenty are gone: they are tried seldom, and the others do not notice."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import trio

from minihs.matrix.event import build_event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.runtime import Clock
from minihs.testing.hostile import Received, ScriptedPeer
from minihs.testing.internet import Internet
from tests.simulation.stage import run_seeded, stage

SEND = "/_matrix/federation/v1/send/"
REFUSING, SILENT, ALIVE = 10, 10, 30
MESSAGES, EVERY = 8, 3 * 3600.0
MOST_CONNECTIONS = 40
"""Pauses double from 2 seconds on: in a day of 86,400 seconds there is room for some sixteen attempts, and
one attempt may look for a well-known document first."""


def test_dead_servers_are_tried_seldom_and_the_others_get_everything_at_once(tmp_path: Path) -> None:
    run_seeded(_fifty_servers, 1, tmp_path)


class Peer(ScriptedPeer):
    """A server with one user, that notes which message came when."""

    def __init__(self, internet: Internet, name: str, clock: Clock) -> None:
        super().__init__(internet, name, clock=clock)
        self.arrivals: dict[str, float] = {}
        self.on("PUT", SEND, self._take)

    def _take(self, received: Received) -> dict[str, object]:
        for pdu in json.loads(received.body)["pdus"]:
            if pdu["type"] == "m.room.message":
                assert pdu["content"]["body"] not in self.arrivals, "sent twice"
                self.arrivals[pdu["content"]["body"]] = trio.current_time()
        return {"pdus": {}}

    async def join(self, room_id: str, resident: str) -> None:
        user = f"@u:{self.name}"
        room = f"{quote(room_id, safe='')}/"
        uri = f"/_matrix/federation/v1/make_join/{room}{quote(user, safe='')}?ver=12"
        status, made = await self.request("GET", resident, uri)
        assert status == 200, made
        template = made["event"]
        event = build_event(
            version=ROOM_VERSIONS["12"],
            room_id=room_id,
            type="m.room.member",
            sender=user,
            content={"membership": "join"},
            state_key=user,
            depth=template["depth"],
            prev_events=template["prev_events"],
            auth_events=template["auth_events"],
            origin_server_ts=self.clock.now_ms(),
            server_name=self.name,
            key=self.key,
        )
        uri = f"/_matrix/federation/v2/send_join/{room}{quote(event.event_id, safe='')}"
        status, answer = await self.request("PUT", resident, uri, event.json)
        assert status == 200, answer


async def _fifty_servers(folder: Path) -> None:
    async with stage(["a.test"], folder, seed=1) as world:
        internet, us = world.internet, world["a.test"].host
        alice = await world["a.test"].user("alice")
        room_id = await alice.create_room(preset="public_chat", room_version="12")
        peers = [
            Peer(internet, f"p{number}.test", world.clock) for number in range(REFUSING + SILENT + ALIVE)
        ]
        for peer in peers:
            await peer.join(room_id, "a.test")
        await trio.sleep(60)

        refusing, silent = peers[:REFUSING], peers[REFUSING : REFUSING + SILENT]
        alive = peers[REFUSING + SILENT :]
        for peer in refusing:
            peer.host.down()
        internet.partition([us], [peer.host for peer in silent])
        internet.dns.queries.clear()
        before = {peer.name: internet.link(us, peer.host).connections for peer in peers}

        sent: dict[str, float] = {}
        for number in range(MESSAGES):
            sent[f"message {number}"] = trio.current_time()
            await alice.send(room_id, f"message {number}")
            await trio.sleep(EVERY)

        for peer in alive:
            took = {body: at - sent[body] for body, at in peer.arrivals.items()}
            assert list(took) == list(sent), f"{peer.name} lacks messages, or got them in another order"
            assert max(took.values()) < 2.0, f"{peer.name} had to wait for the dead"
        for peer in refusing + silent:
            assert peer.arrivals == {}
            lookups = internet.dns.queries.count(peer.name)
            refused = internet.link(us, peer.host).refused
            assert lookups <= MOST_CONNECTIONS, f"{peer.name} was looked up {lookups} times"
            assert refused <= MOST_CONNECTIONS, f"{peer.name} refused {refused} connections"
        opened = max(internet.link(us, peer.host).connections - before[peer.name] for peer in alive)
        assert opened <= MESSAGES
