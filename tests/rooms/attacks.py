# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a PDU by itself, by the check that must find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from minihs.matrix import canonical
from minihs.matrix.event_format import (
    MAX_AUTH_EVENTS,
    MAX_EVENT_BYTES,
    MAX_OLD_REFERENCES,
    MAX_PREV_EVENTS,
)
from minihs.matrix.room_versions import RoomVersion
from minihs.matrix.signatures import SigningKey, sign_event
from tests.rooms.forge import Forger

type JsonObject = dict[str, Any]
type Change = Callable[[Forger, JsonObject], JsonObject]
"""From an unsigned good event to the bad PDU."""

STRANGER = "@alice:h.test"
"""A member of the room on another server than the forger's."""


@dataclass(frozen=True)
class Attack:
    name: str
    check: str
    """Of `admission.CHECKS`."""
    change: Change

    def __repr__(self) -> str:
        return self.name


def attacks(version: RoomVersion, *, every_type: bool = True, of_history: bool = False) -> list[Attack]:
    """`every_type`: with every wrong type in every field; else with one wrong type in each. `of_history`: for
    a path by which events may have more references."""
    types = list(_wrong_types(version))
    if not every_type:
        types = list({attack.name.split(" is ")[0]: attack for attack in types}.values())
    return [*_signatures(), *types, *_formats(version, of_history), *_hashes(), *_rooms()]


def _sealed(name: str, check: str, edit: Callable[[JsonObject], Any]) -> Attack:
    """The change is made before it is hashed and signed: the signature is right."""

    def change(forger: Forger, pdu: JsonObject) -> JsonObject:
        edit(pdu)
        return forger.seal(pdu)

    return Attack(name, check, change)


def _after(name: str, check: str, edit: Callable[[JsonObject], Any]) -> Attack:
    """The change is made to the signed event."""

    def change(forger: Forger, pdu: JsonObject) -> JsonObject:
        sealed = forger.seal(pdu)
        edit(sealed)
        return sealed

    return Attack(name, check, change)


# -- signatures ------------------------------------------------------------------------------------


def _signatures() -> Iterator[Attack]:
    def with_another_key(forger: Forger, pdu: JsonObject) -> JsonObject:
        sealed = forger.seal(pdu) | {"signatures": {}}
        return sign_event(sealed, forger.version, forger.name, SigningKey(b"?" * 32, "1"))

    def by_another_server(forger: Forger, pdu: JsonObject) -> JsonObject:
        return forger.seal(pdu, "c.test")

    def foreign_sender(forger: Forger, pdu: JsonObject) -> JsonObject:
        state_key = {"state_key": STRANGER} if pdu.get("state_key") == pdu["sender"] else {}
        return forger.seal({**pdu, "sender": STRANGER, **state_key})

    yield Attack("signed with a key that is not the server's", "signatures", with_another_key)
    yield Attack("signed by a server that is not the sender's", "signatures", by_another_server)
    yield Attack("in the name of another server's user", "signatures", foreign_sender)
    yield _after("without any signature", "signatures", lambda pdu: pdu.update(signatures={}))
    yield _after("depth changed after signing", "signatures", lambda pdu: pdu.update(depth=pdu["depth"] + 1))
    yield _after(
        "with a signature that is no base64",
        "signatures",
        lambda pdu: pdu.update(signatures={"e.test": {"ed25519:1": "§§§"}}),
    )
    yield _after(
        "with a signature by a key that nobody knows",
        "signatures",
        lambda pdu: pdu.update(
            signatures={"e.test": {"ed25519:2": next(iter(pdu["signatures"]["e.test"].values()))}}
        ),
    )
    yield _after(
        "with signatures of the wrong type",
        "signatures",
        lambda pdu: pdu.update(signatures={"e.test": ["ed25519:1"], "x": 5}),
    )


# -- format ----------------------------------------------------------------------------------------

_RUBBISH: tuple[Any, ...] = (None, True, 7, -1, 1.5, "rubbish", [], [7], ["$x", [5]], {}, {"a": 1}, 2**70)
_GOOD: dict[str, Callable[[Any], bool]] = {
    "type": lambda x: isinstance(x, str),
    "sender": lambda x: False,
    "room_id": lambda x: False,
    "state_key": lambda x: isinstance(x, str),
    "content": lambda x: isinstance(x, dict),
    "origin_server_ts": lambda x: type(x) is int and abs(x) < 2**53,
    "depth": lambda x: type(x) is int and 0 <= x < 2**53,
    "hashes": lambda x: False,
    "signatures": lambda x: isinstance(x, dict),
    "prev_events": lambda x: x == [],
    "auth_events": lambda x: x == [],
}


def _wrong_types(version: RoomVersion) -> Iterator[Attack]:
    for field, is_good in _GOOD.items():
        # The room id tells a transaction which room's rules to read the event by; without one it is dropped
        # unread, which the tests of transactions look at.
        for value in _RUBBISH:
            if not is_good(value):
                edit = _setting(field, value)
                make = _after if field in ("hashes", "signatures") else _sealed
                yield make(f"{field} is {value!r}", "format", edit)
        if field != "state_key":
            yield _after(f"without {field}", "format", _removing(field))
    if version.event_format != 1:
        yield _sealed("with an event_id", "format", _setting("event_id", "$x:e.test"))
    else:
        for value in (None, 7, [], "rubbish", "$x", "x:e.test"):
            yield _sealed(f"event_id is {value!r}", "format", _setting("event_id", value))


def _setting(field: str, value: Any) -> Callable[[JsonObject], None]:
    def edit(pdu: JsonObject) -> None:
        pdu[field] = value

    return edit


def _removing(field: str) -> Callable[[JsonObject], None]:
    def edit(pdu: JsonObject) -> None:
        del pdu[field]

    return edit


def _formats(version: RoomVersion, of_history: bool) -> Iterator[Attack]:
    def too_many(field: str, count: int) -> Change:
        def change(forger: Forger, pdu: JsonObject) -> JsonObject:
            more = [f"$more{n}" for n in range(count - len(pdu[field]))]
            return forger.seal({**pdu, field: pdu[field] + forger.references(more)})

        return change

    def too_large(forger: Forger, pdu: JsonObject) -> JsonObject:
        pdu = {**pdu, "content": {**pdu["content"], "fill": ""}}
        missing = MAX_EVENT_BYTES + 1 - len(canonical.encode(forger.seal(pdu)))
        pdu["content"]["fill"] = "x" * missing
        sealed = forger.seal(pdu)
        assert len(canonical.encode(sealed)) == MAX_EVENT_BYTES + 1
        return sealed

    def nested(forger: Forger, pdu: JsonObject) -> JsonObject:
        deep: Any = []
        for _ in range(100):
            deep = [deep]
        return forger.seal({**pdu, "content": {**pdu["content"], "deep": deep}})

    for field, most in (("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)):
        count = (MAX_OLD_REFERENCES if of_history else most) + 1
        yield Attack(f"{count} {field}", "format", too_many(field, count))
    yield Attack("65,537 bytes", "format", too_large)
    yield Attack("nested 100 deep", "format", nested)
    yield _sealed("type of 256 bytes", "format", _setting("type", "x" * 256))
    yield _sealed("state_key of 256 bytes", "format", _setting("state_key", "x" * 256))
    yield _sealed("depth 2^63", "format", _setting("depth", 2**63))
    yield _sealed("depth -2^63", "format", _setting("depth", -(2**63)))
    if version.strict_json:
        yield _sealed("depth 2^53", "format", _setting("depth", 2**53))
        for value in (1.5, 2**53, -(2**53), 1e300, float("nan")):
            yield _sealed(f"{value!r} in the content", "format", _adding(value))


def _adding(value: Any) -> Callable[[JsonObject], None]:
    def edit(pdu: JsonObject) -> None:
        pdu["content"] = {**pdu["content"], "number": value}

    return edit


# -- hash and room ---------------------------------------------------------------------------------


def _hashes() -> Iterator[Attack]:
    def edit(pdu: JsonObject) -> None:
        pdu["content"] = {**pdu["content"], "smuggled": "in"}

    yield _after("content changed after signing", "hash", edit)
    yield _sealed_hash("a hash of something else", "x" * 43)
    yield _sealed_hash("a hash that is no base64", "§§§")


def _sealed_hash(name: str, digest: str) -> Attack:
    def change(forger: Forger, pdu: JsonObject) -> JsonObject:
        pdu = {**pdu, "content": {**pdu["content"], "smuggled": "in"}, "hashes": {"sha256": digest}}
        return sign_event(pdu, forger.version, forger.name, forger.world.keys[forger.name])

    return Attack(name, "hash", change)


def _rooms() -> Iterator[Attack]:
    def change(forger: Forger, pdu: JsonObject) -> JsonObject:
        other = "!" + "B" * 43 if forger.version.room_id_is_create_hash else "!other:h.test"
        return forger.seal({**pdu, "room_id": other})

    yield Attack("of a room that nobody knows", "room", change)
