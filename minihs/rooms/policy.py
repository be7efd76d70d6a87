# SPDX-License-Identifier: Apache-2.0
"""Policy servers: a server that a room has designated signs each event that it recommends (spec:
server-server-api, "Policy Servers").

Our own events are not sent without its signature. Others' that lack it, and that it does not sign when we
ask, are soft-failed: check 7 on receipt of a PDU. Its key is in the room's state, so checking needs nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from minihs.matrix import canonical, unpadded
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, too_large
from minihs.matrix.event import Event
from minihs.matrix.event_format import MAX_EVENT_BYTES
from minihs.matrix.federation_errors import FederationError, RemoteRefused
from minihs.matrix.ids import is_server_name
from minihs.matrix.signatures import POLICY_KEY_ID, SignatureError, verify_event_signature
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head
from minihs.rooms.parts import Parts

TYPE = "m.room.policy"
DOWN_MS = 60_000
"""A policy server that can't be reached is not asked about others' events for so long."""

_PASSED_ON = ("M_BAD_JSON", "M_FORBIDDEN", "M_LIMIT_EXCEEDED", "M_NOT_FOUND", "M_TOO_LARGE", "M_UNRECOGNIZED")
"""Errcodes that our client is told as they are. Others might make it do things, such as log out."""


@dataclass(frozen=True, slots=True)
class PolicyServer:
    host: str
    public_key: bytes


def policy_server_of(graph: Graph, head: Head) -> PolicyServer | None:
    """The policy server that the room uses by its current state: it must have a user in the room."""
    event_id = graph.lookup(head.current, (TYPE, ""))
    event = None if event_id is None else graph.event(event_id)
    if event is None:
        return None
    host, keys = event.content.get("via"), event.content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(host, str) or not is_server_name(host) or not isinstance(key, str):
        return None
    if not graph.is_host_joined(head.room_nid, host):
        return None
    try:
        return PolicyServer(host, unpadded.decode(key))
    except ValueError:
        return PolicyServer(host, b"")  # with that key nothing is ever signed rightly


def is_recommended(policy: PolicyServer | None, event: Event) -> bool:
    """Has the policy server signed it? The event that designates it needs no signature."""
    if policy is None or (event.type == TYPE and event.state_key == ""):
        return True
    try:
        verify_event_signature(event, policy.host, POLICY_KEY_ID, policy.public_key)
    except SignatureError:
        return False
    return True


class Policies:
    """Asking policy servers. Remembers which could not be reached a moment ago."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._down_until: dict[str, int] = {}

    async def sign_ours(self, policy: PolicyServer, event: Event) -> Event:
        """Our event with the signature. Raises MatrixError: what the policy server said."""
        if policy.host == self._parts.our_name:
            raise MatrixError(404, "M_UNRECOGNIZED", "The room's policy server is this one, which is none.")
        try:
            return await self._ask(policy, event)
        except RemoteRefused as error:
            status = error.status if error.status in (400, 403, 404, 429) else 403
            errcode = error.errcode if error.errcode in _PASSED_ON else "M_FORBIDDEN"
            raise MatrixError(
                status, errcode, error.error or "The room's policy server refuses the event."
            ) from error
        except FederationError as error:
            raise MatrixError(
                502, "M_UNKNOWN", f"The room's policy server could not be asked: {error}"
            ) from error

    async def sign_others(self, policy: PolicyServer, event: Event) -> Event:
        """Another server's event, with the signature if the policy server gives it."""
        now = self._parts.now()
        is_down = now < self._down_until.get(policy.host, 0) <= now + DOWN_MS  # else the clock was set back
        if policy.host == self._parts.our_name or is_down:
            return event
        try:
            return await self._ask(policy, event)
        except RemoteRefused:
            return event
        except (FederationError, MatrixError):
            self._down_until = {host: until for host, until in self._down_until.items() if until > now}
            self._down_until[policy.host] = now + DOWN_MS
            return event

    async def _ask(self, policy: PolicyServer, event: Event) -> Event:
        answer = await self._parts.federation.policy_sign(policy.host, event.json)
        of_host = answer.get(policy.host)
        signature = of_host.get(POLICY_KEY_ID) if isinstance(of_host, dict) else None
        # Nothing else is taken from the answer: it may not have the signatures that the event came with.
        given: JsonObject = {policy.host: {POLICY_KEY_ID: signature}} if isinstance(signature, str) else {}
        signed = event.with_signatures(given)
        if not is_recommended(policy, signed):
            raise MatrixError(403, "M_FORBIDDEN", "The room's policy server did not rightly sign the event.")
        if len(canonical.encode(signed.json)) > MAX_EVENT_BYTES:
            raise too_large("The event is too large to be signed by the room's policy server.")
        return signed
