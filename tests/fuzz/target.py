# SPDX-License-Identifier: Apache-2.0
"""A server under attack (tests/advisories/kit.py), and what must hold after each case."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpcore2

from minihs.federation import http
from minihs.federation.connections import Connections
from minihs.federation.dial import Target as Place
from minihs.matrix import canonical
from minihs.matrix.canonical import MAX_CARRIED_DEPTH
from minihs.matrix.event import Event
from minihs.matrix.hashes import has_right_content_hash
from minihs.matrix.ids import domain_of
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.matrix.signatures import SignatureError, verify_event_signature
from minihs.store.events import Outcome
from minihs.testing.events import signing_key_of
from minihs.testing.hostile import KEY_PATH, Received, Reply, ScriptedPeer
from minihs.web.routing import TRANSACTION_BODY_CAP
from tests.advisories.kit import ALICE, MALLORY, V1, Siege, siege
from tests.fuzz.events import good_event, sealed
from tests.fuzz.strategies import Answered, Body, JsonObject, Pdu, as_bytes, edited
from tests.media.peers import ask as ask_for_media
from tests.rooms.forge import Forger

ERRCODE = re.compile(r"[A-Z][A-Z0-9_.]{2,}")
VITAL = ["m.room.create", "m.room.power_levels", "m.room.join_rules", "m.room.server_acl", "m.room.policy"]
NOTARY = "notary.test"
MAX_ANSWER = 64 * 1024 * 1024
LARGEST_TRANSACTION = TRANSACTION_BODY_CAP - 65_536
"""Bytes of its PDUs and EDUs. A larger one is refused as a whole, and that is another test's matter."""

type Script = Callable[[Received], Reply] | Reply


@dataclass
class Place_:
    """A room of alice's with mallory in it."""

    room_id: str
    forger: Forger
    known: set[str] = field(default_factory=set)
    """State events that were found to be what they should be."""
    vital: dict[str, object] = field(default_factory=dict)
    """What mallory needs, as it was when the case began."""


@dataclass
class Target:
    siege: Siege
    scripts: dict[tuple[str, str], Script] = field(default_factory=dict)
    """(method, beginning of the path) → what the peer answers, for this case."""
    sent: list[str] = field(default_factory=list)
    """What this case sent, to be shown if it fails."""
    numbers: Iterator[int] = field(default_factory=count)
    notary: ScriptedPeer = field(init=False)
    _rooms: dict[tuple[str, str], Place_] = field(default_factory=dict)
    _pool: Connections = field(init=False)
    at: Place_ = field(init=False)

    def __post_init__(self) -> None:
        peer = self.siege.peer
        for method in ("GET", "POST", "PUT"):
            peer.on(method, "/", self._script)
        self.notary = self.stranger(NOTARY)
        self._pool = Connections(peer._pool_dialler, lambda: [Place("one.test", 8448)], most=4)

    @property
    def peer(self) -> ScriptedPeer:
        return self.siege.peer

    @property
    def version(self) -> RoomVersion:
        return self.siege.forger.version

    # -- a case and what must hold after it --

    async def begin(self) -> None:
        self.scripts.clear()
        self.sent.clear()
        self.peer.requests.clear()
        self.is_heard_from()

    def is_heard_from(self) -> None:
        """Whatever is thought of the peer, it is there."""
        services = self.siege.world["one.test"].server.services
        services.federation.heard_from(self.peer.name)
        services.senders.heard_from(self.peer.name)

    async def check(self) -> None:
        """Nothing failed, nothing forged is state, and the server still serves."""
        await self.siege.rest()
        logs, self.siege.logs[:] = list(self.siege.logs), []
        for entry in logs:
            if entry["log_level"] in ("error", "critical") or entry.get("exc_info"):
                error = entry.get("exc_info")
                raise AssertionError(f"{entry}; sent: {self.shown()}") from (
                    error if isinstance(error, BaseException) else None
                )
        status, answer = await self.siege.alice.ask("GET", "/account/whoami")
        assert (status, answer.get("user_id")) == (200, ALICE), f"{status} {answer}"
        for key, place in list(self._rooms.items()):
            if place is getattr(self, "at", None):
                self.nothing_is_forged(place.room_id, place.known)
                if self.vital_state() != place.vital:
                    del self._rooms[key]

    def shown(self) -> str:
        return " | ".join(text[:3000] for text in self.sent)

    def nothing_is_forged(self, room_id: str, known: set[str] | None = None) -> None:
        """Whatever is state was signed by its sender's server, whose keys are in our hands, and says what was
        signed, or nothing that a redaction takes away."""
        parts = self.siege.rooms.parts
        known = set() if known is None else known
        for key, event_id in parts.graph.full(parts.head(room_id).current).items():
            if event_id in known:
                continue
            event = parts.graph.event(event_id)
            assert event is not None
            assert event.key == key
            assert event.room_id == room_id
            assert self._is_genuine(event), f"{event.json} is state; sent: {self.shown()}"
            known.add(event_id)

    def _is_genuine(self, event: Event) -> bool:
        keys = {
            self.peer.name: [self.peer.key, signing_key_of(self.peer.name)],
            "one.test": [self.siege.world["one.test"].server.services.signing_key],
        }
        name = domain_of(event.sender)
        for key in keys.get(name, []):
            with suppress(SignatureError):
                verify_event_signature(event, name, key.key_id, key.verify_key)
                return has_right_content_hash(event) or event.redacted().json == event.json
        return False

    def vital_state(self) -> dict[str, object]:
        """What mallory needs in the room. If it changes, rightly, what else she sends may not be taken."""
        state = self.siege.state()
        vital: dict[str, object] = {kind: state.get((kind, "")) for kind in VITAL}
        for user in (ALICE, MALLORY):
            event = self.siege.rooms.parts.graph.event(state.get(("m.room.member", user), ""))
            vital[user] = None if event is None else event.membership
        return vital

    # -- rooms --

    async def room(self, version: str, rule: str = "public") -> Place_:
        """Work goes on in a room of this version and join rule, as it was left or new."""
        made = self.siege.forger.made
        if (version, rule) not in self._rooms:
            levels: JsonObject = {"users": {MALLORY: 50}, "events": {}}  # so that she may change all state
            if not ROOM_VERSIONS[version].privileged_creators:
                levels["users"][ALICE] = 100
            room_id = await self.siege.alice.create_room(
                preset="public_chat", room_version=version, power_level_content_override=levels
            )
            await self.siege.enter(room_id)
            if rule != "public":
                await self.siege.alice.set_state(room_id, "m.room.join_rules", {"join_rule": rule})
            self._rooms[version, rule] = Place_(room_id, self.siege.forger)
        self.at = self._rooms[version, rule]
        self.siege.room, self.siege.forger = self.at.room_id, self.at.forger
        self.siege.forger.made = made + 1  # no event id is used in two rooms
        self.at.vital = self.vital_state()
        return self.at

    # -- others --

    def stranger(self, name: str, **options: Any) -> ScriptedPeer:
        """A server that was never heard of."""
        return ScriptedPeer(self.siege.world.internet, name, clock=self.peer.clock, **options)

    async def download(self, path: str) -> int:
        """Alice fetches a file: the status, the answer being a file or an error."""
        got = await ask_for_media(self.siege.alice, "GET", path)
        assert got.status == 200 or is_error(got.json), f"{got}; sent: {self.shown()}"
        return got.status

    # -- events --

    def base(self, kind: str) -> JsonObject:
        return good_event(self.siege, kind, next(self.numbers))

    def pdu(self, case: Pdu, base: JsonObject | None = None) -> Any:
        """The event of a case, made from a good one."""
        good = self.base(case.base) if base is None else base
        changed = edited({**good, "content": edited(good["content"], case.content)}, case.edits)
        if isinstance(changed, dict):
            changed = sealed(self.siege, case.seal, good, changed)
        return edited(changed, case.after)

    def id_of(self, pdu: Any) -> str:
        """The id of an event, or one that is of no event."""
        if not isinstance(pdu, dict):
            return "$" + "A" * 43
        return self.siege.id_of(canonical_or_none(pdu) or {})

    # -- asking --

    async def ask(
        self, method: str, uri: str, content: Any = None, *, has_us_ask: bool = False, **options: Any
    ) -> tuple[int, Any]:
        """As the peer, with any JSON value or bytes for a body; the answer must be a proper one. That others
        failed us may only be said if the request `has_us_ask` them."""
        body = content if isinstance(content, bytes) or content is None else as_bytes(content)
        self.sent.append(f"{method} {uri} {(body or b'')[:3000]!r}")
        status, answer = await self.request(method, uri, body, **options)
        if not (has_us_ask and status == 502 and is_error(answer)):
            self.must_be_proper(status, answer)
        return status, answer

    async def request(
        self, method: str, uri: str, body: bytes | None, *, headers: Sequence[tuple[str, str]] | None = None
    ) -> tuple[int, Any]:
        """Signed over what the body means; if it means nothing, over something else."""
        if headers is None:
            try:
                content = None if body is None else canonical.loads(body, max_depth=MAX_CARRIED_DEPTH)
                signature = self.peer.authorization(method, "one.test", uri, content)
            except ValueError:
                signature = self.peer.authorization(method, "one.test", uri, {})
            headers = [("Authorization", signature)]
        fields = [("Host", "one.test"), *headers]
        if body is not None:
            fields += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        url = httpcore2.URL(scheme="https", host="one.test", port=8448, target=uri)
        async with http.exchange(self._pool, method, url, fields, body) as response:
            answer = await http.read_body(response, MAX_ANSWER)
        try:
            return response.status, canonical.loads(answer)
        except ValueError:
            return response.status, None

    def must_be_proper(self, status: int, answer: Any) -> None:
        assert status < 500, f"{status} {answer}; sent: {self.shown()}"
        proper = isinstance(answer, dict | list) if status == 200 else is_error(answer)
        assert proper, f"{status} {answer}; sent: {self.shown()}"

    async def client(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """As alice. Her server may say that others failed it, but not that it failed itself."""
        self.sent.append(f"{method} {path} {body!r}")
        status, answer = await self.siege.alice.ask(method, path, body)
        assert status == 200 or is_error(answer), f"{status} {answer}; sent: {self.shown()}"
        assert status < 500 or (status in (502, 504)), f"{status} {answer}; sent: {self.shown()}"
        return status, answer

    async def send(self, pdus: Sequence[Any], edus: Sequence[Any] = ()) -> JsonObject:
        """A transaction that is right as a whole, and a good PDU and a good EDU at its end."""
        left = [*edus]
        while len(as_bytes([*pdus, *left])) > LARGEST_TRANSACTION:
            left.remove(max(left, key=lambda each: len(as_bytes(each))))
        good = self.siege.event()
        good_id = self.siege.id_of(good)
        text = f"good {next(self.numbers)}"
        edu = {
            "edu_type": "m.direct_to_device",
            "content": {
                "sender": MALLORY,
                "type": "x.y",
                "message_id": text,
                "messages": {ALICE: {"*": {"text": text}}},
            },
        }
        vital = self.vital_state()
        body = {
            "origin": self.peer.name,
            "origin_server_ts": self.siege.world.clock.now_ms(),
            "pdus": [*pdus, good],
            "edus": [*left, edu],
        }
        status, answer = await self.ask("PUT", f"{V1}/send/t{next(self.numbers)}", body)
        if status != 200:  # then it was no JSON at all
            assert canonical_or_none(body) is None, f"{status} {answer}; sent: {self.shown()}"
            return {}
        await self.siege.rest()
        results: JsonObject = answer["pdus"]
        assert results.get(good_id) == {}, f"{answer}; sent: {self.shown()}"
        outcome = self.siege.outcome(good_id)
        if vital == self.vital_state():
            assert outcome is Outcome.ACCEPTED, f"the good PDU: {outcome}; sent: {self.shown()}"
        synced = await self.siege.alice.sync()
        told = [event["content"].get("text") for event in synced.get("to_device", {}).get("events", [])]
        assert text in told, f"the good EDU is not there: {told}; sent: {self.shown()}"
        return results

    # -- answering --

    def on(self, method: str, path: str, answer: Any, case: Answered | None = None) -> None:
        """The peer answers so, spoiled by the case."""
        if callable(answer):
            self.scripts[method, path] = lambda received: self.spoiled(answer(received), case or Answered())
        else:
            self.scripts[method, path] = self.spoiled(answer, case or Answered())

    def spoiled(self, answer: Any, case: Answered) -> Reply:
        body = case.body.of(answer)
        self.sent.append(f"answer {case.status} {body[:3000]!r}")
        return Reply(case.status, body=body, headers=case.headers)

    def _script(self, received: Received) -> Reply:
        ways = [
            (path, script)
            for (method, path), script in self.scripts.items()
            if method == received.method and received.path.startswith(path)
        ]
        if ways:
            _, script = max(ways, key=lambda way: len(way[0]))
            return script(received) if callable(script) else script
        if received.path == KEY_PATH:
            both = (self.peer.key, signing_key_of(self.peer.name))
            named = {key.key_id: {"key": key.verify_key_base64} for key in both}
            return Reply(json=self.peer.key_document(verify_keys=named))
        if received.path.startswith(f"{V1}/send/"):
            return Reply(json={"pdus": {}})
        return Reply(404, {"errcode": "M_NOT_FOUND", "error": "Not in the script."})

    def answer_honestly(self) -> None:
        """About the room as it is, for a question that has no script."""
        forger = self.siege.forger
        state, chain = forger.state_answer()
        state_ids, chain_ids = forger.state_ids_answer()
        for method, verb, answer in [
            ("POST", "get_missing_events", {"events": []}),
            ("GET", "state_ids", {"pdu_ids": state_ids, "auth_chain_ids": chain_ids}),
            ("GET", "state", {"pdus": state, "auth_chain": chain}),
            ("GET", "event_auth", {"auth_chain": chain}),
            ("GET", "backfill", {"pdus": []}),
        ]:
            self.on(method, f"{V1}/{verb}/", answer)

    async def forget_inbox(self) -> None:
        """What waits for events that nobody has is not tried again in other cases."""
        await self.siege.rooms.parts.db.write(lambda tx: tx.execute("DELETE FROM inbox").rowcount)


def is_error(answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and isinstance(answer.get("errcode"), str)
        and ERRCODE.fullmatch(answer["errcode"]) is not None
        and isinstance(answer.get("error"), str)
    )


def canonical_or_none(value: Any, max_depth: int = MAX_CARRIED_DEPTH) -> Any:
    """The value as a server reads it."""
    try:
        return canonical.loads(Body().of(value), max_depth=max_depth)
    except ValueError:
        return None


@asynccontextmanager
async def targets(folder: Path) -> AsyncIterator[Target]:
    federation = {"ca_file": str(folder / "internet-ca.pem"), "notaries": [NOTARY]}
    async with siege(folder, federation=federation) as at:
        at.loud = True  # `check` looks
        yield Target(at)
