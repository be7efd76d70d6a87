# SPDX-License-Identifier: Apache-2.0
"""A server that lies: it signs what its users may not do, and shows it to others as if it were new.

Honest servers never make an event that the rules refuse, so without lies nobody would have anything to
reject.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from sqlite3 import ProgrammingError
from typing import Any

from minihs.matrix import canonical
from minihs.matrix.auth_rules import auth_types_for
from minihs.matrix.event import Event, build_event
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import domain_of
from minihs.store import events as event_store
from minihs.store import rooms
from minihs.store.errors import StoreError
from minihs.store.events import Outcome
from minihs.web.services import Services
from tests.matrix.oracle_auth import State, allowed
from tests.simulation.crowd import Crowd
from tests.simulation.inspection import Holding, StateIds

TRIES = 20
"""At a lie that its own auth events allow."""

type Lie = tuple[str, dict[str, Any], str | None]
"""Type, content and state key of an event."""


def lies(crowd: Crowd, user_id: str) -> list[Lie]:
    """What few may do. (Who may after all has told the truth, and the rules say so.)"""
    member, host = "m.room.member", crowd.host.user_id
    return [
        ("m.room.message", {"said": "I am not in the room"}, None),
        ("m.room.power_levels", {"users": {user_id: 100}}, ""),
        ("m.room.join_rules", {"join_rule": "public"}, ""),
        ("m.room.topic", {"topic": "mine"}, ""),
        ("org.example.own", {}, host),
        (member, {"membership": "join"}, user_id),
        (member, {"membership": "invite"}, user_id),
        (member, {"membership": "ban"}, host),
        (member, {"membership": "leave"}, host),
    ]


async def forge(crowd: Crowd, chance: random.Random, user_id: str, recent: Sequence[str]) -> str:
    """Tell some of the others one lie in a user's name. Returns its event id, or "" if the user's server is
    not in the room. `recent`: events that it might redact."""
    name = domain_of(user_id)
    services = crowd.world[name].server.services
    room = rooms.get(services.db.read, crowd.room_id)
    if room is None or not room.resident or room.state_group is None:
        return ""
    holding = Holding.of(crowd.world, name, crowd.room_id)
    said = lies(crowd, user_id)
    if recent:
        said.append(("m.room.redaction", {"redacts": chance.choice(recent)}, None))
    event = _cunning(services, holding, holding.state(room.state_group), chance, user_id, said)
    transaction = {
        "origin": name,
        "origin_server_ts": event.origin_server_ts,
        "pdus": [event.json],
        "edus": [],
    }
    others = [other for other in crowd.names if other != name]
    for other in chance.sample(others, chance.randint(1, len(others))):
        # The server whose name it is in may be stopped meanwhile, and its database closed.
        with suppress(FederationError, StoreError, ProgrammingError):
            await services.federation.send_transaction(
                other, event.event_id[1:], canonical.encode(transaction), within=30
            )
    return event.event_id


def _cunning(
    services: Services, holding: Holding, now: StateIds, chance: random.Random, user_id: str, said: list[Lie]
) -> Event:
    """One of the lies, and if some try finds any, one that the events which it cites allow: the state before
    it alone refuses it. Otherwise a plain one."""
    held = holding.events()
    current = {key: held[event_id].event for key, event_id in now.items()}
    ever: dict[tuple[str, str], list[Event]] = {}
    for _, stored in sorted(held.items()):
        if stored.event.key is not None and stored.outcome is Outcome.ACCEPTED:
            ever.setdefault(stored.event.key, []).append(stored.event)
    for _ in range(TRIES):
        once_true = {key: chance.choice(events) for key, events in ever.items()}
        event = _sign(services, holding, once_true, user_id, chance.choice(said))
        if allowed(event, once_true) and not allowed(event, current):
            return event
    return _sign(services, holding, current, user_id, chance.choice(said))


def _sign(services: Services, holding: Holding, state: State, user_id: str, lie: Lie) -> Event:
    """Right in all but what it says: built on the newest events, citing what such an event should."""
    type, content, state_key = lie
    tips = sorted(holding.extremities())[:10]
    version = holding.version
    cited = auth_types_for(version, type=type, sender=user_id, state_key=state_key, content=content)
    return build_event(
        version=version,
        room_id=holding.room_id,
        type=type,
        sender=user_id,
        content={name: value for name, value in content.items() if name != "redacts"},
        state_key=state_key,
        depth=1 + max(stored.event.depth for stored in event_store.get_many(holding.db, tips).values()),
        prev_events=tips,
        auth_events=[state[key].event_id for key in cited if key in state],
        origin_server_ts=services.runtime.clock.now_ms(),
        redacts=content.get("redacts"),
        server_name=holding.name,
        key=services.signing_key,
    )
