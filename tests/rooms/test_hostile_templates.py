# SPDX-License-Identifier: Apache-2.0
"""Whatever the answer to make_join, make_leave or make_knock: we sign our own member event or nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from minihs.matrix import canonical
from minihs.matrix.errors import MatrixError
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SigningKey
from minihs.rooms.handshake import own_member_event, read_template
from minihs.rooms.parts import Parts
from minihs.runtime import Runtime
from tests.rooms.forge import rows_of
from tests.rooms.world import World, membership_of, stored, worlds

type JsonObject = dict[str, Any]

VIC, EVE = "@vic:v.test", "@eve:e.test"
KEY = SigningKey(b"v" * 32, "1")
PARTS = cast(
    "Parts",
    SimpleNamespace(
        our_name="v.test", signing_key=KEY, runtime=Runtime(), time_to_sign=lambda: 1_800_000_000_000
    ),
)
ROOM_IDS = ["!room:e.test", "!" + "r" * 43]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
good_ids = st.sampled_from(["$a:e.test", "$" + "b" * 43])
bad_ids = st.sampled_from(["", "a", "$" + "x" * 300, None])


def references(version: object) -> st.SearchStrategy[Any]:
    """Mostly what the version asks for."""
    ids = st.lists(good_ids, max_size=9)
    pairs = ids.map(lambda found: [[each, {"sha256": "x"}] for each in found])
    right = pairs if version in ("1", "2") else ids
    return right | right | right | pairs | ids | st.lists(good_ids | bad_ids, max_size=25) | anything


@st.composite
def templates(draw: st.DrawFn, room_id: str, membership: str) -> JsonObject:
    """Right in the fields that are compared, but for two of them or none; in the others anything goes."""
    versions = [name for name in ROOM_VERSIONS if (name == "12") == (":" not in room_id)]
    version = draw(
        st.sampled_from(versions) | st.sampled_from(versions) | st.sampled_from(list(ROOM_VERSIONS))
    )
    content = {
        "membership": membership,
        "join_authorised_via_users_server": draw(st.sampled_from([None, EVE, VIC, "x"])),
        "displayname": draw(anything),
    }
    event = {
        "type": "m.room.member",
        "room_id": room_id,
        "sender": VIC,
        "state_key": VIC,
        "content": content,
        "depth": draw(st.integers() | anything),
        "origin_server_ts": draw(anything),
        "prev_events": draw(references(version)),
        "auth_events": draw(references(version)),
        "redacts": draw(anything),
        "unsigned": draw(anything),
        "event_id": draw(anything),
        "hashes": draw(anything),
        "signatures": draw(anything),
        draw(st.text(max_size=10)): draw(anything),
    }
    answer: JsonObject = {"event": event, "room_version": version}
    for spoiled in draw(st.lists(st.sampled_from([event, content, answer]), max_size=1)):
        field = draw(st.sampled_from(sorted(spoiled)))
        spoiled[field] = draw(anything)
    return answer


@settings(max_examples=250)
@given(data=st.data())
def test_of_a_template_nothing_is_signed_but_our_own_member_event(data: st.DataObject) -> None:
    room_id = data.draw(st.sampled_from(ROOM_IDS))
    membership = data.draw(st.sampled_from(["join", "leave", "knock"]))
    answer = data.draw(templates(room_id, membership))
    content = {"membership": membership, "reason": "mine"}
    try:
        template = read_template("e.test", answer, room_id=room_id, user_id=VIC, membership=membership)
        event = own_member_event(PARTS, "e.test", template, room_id, VIC, content)
    except FederationError:
        return
    note("signed")
    assert (event.type, event.sender, event.state_key) == ("m.room.member", VIC, VIC)
    assert event.room_id == room_id
    assert event.content == content
    assert event.origin_server_ts == 1_800_000_000_000
    assert set(event.json) <= {
        "type",
        "sender",
        "state_key",
        "room_id",
        "content",
        "depth",
        "origin_server_ts",
        "prev_events",
        "auth_events",
        "hashes",
        "signatures",
        "event_id",
    }
    assert list(event.json["signatures"]) == ["v.test"]
    if "event_id" in event.json:
        assert event.event_id.endswith(":v.test")


# -- the same through a whole server: everything that our key signs is looked at -------------------


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, JsonObject]]:
    """(key, what was signed) from now on."""
    found: list[tuple[str, JsonObject]] = []
    honest = SigningKey.sign

    def sign(self: SigningKey, message: bytes) -> bytes:
        found.append((self.verify_key_base64, canonical.loads(message)))
        return honest(self, message)

    monkeypatch.setattr(SigningKey, "sign", sign)
    return found


EVIL_TEMPLATES: list[JsonObject] = [
    {"type": "m.room.power_levels", "state_key": "", "content": {"users": {EVE: 100}}},
    {"sender": "@other:v.test", "state_key": "@other:v.test"},
    {"state_key": EVE},
    {"room_id": "!other:v.test"},
    {"content": {"membership": "ban"}},
    {"content": {"membership": ["join"]}},
    {"content": None},
    {"prev_events": [f"$x{n}" for n in range(21)]},
    {"prev_events": [5]},
    {"prev_events": None},
    {"auth_events": [f"$x{n}" for n in range(11)]},
    {"auth_events": ["$" + "x" * 255]},
    {"auth_events": [["$x", {"sha256": "y" * 70_000}]]},
    {"redacts": "$x"},
    {"type": "m.room.redaction", "redacts": "$x"},
]


@pytest.mark.parametrize("verb", ["join", "leave", "knock"])
async def test_a_server_signs_nothing_else_and_goes_on_to_the_next(
    tmp_path: Path, signed: list[tuple[str, JsonObject]], verb: str
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        v, h = world.servers["v.test"], world.servers["h.test"]
        key = world.keys["v.test"].verify_key_base64
        for evil in EVIL_TEMPLATES:
            room_id = await _room(world, verb)
            # To leave, the inviter's server is asked; there is no other.
            liar = "h.test" if verb == "leave" else "e.test"
            world.hooks[liar, f"make_{verb}"] = _evil(evil)
            signed.clear()
            world.asked.clear()
            await _do(v, verb, room_id)
            assert world.asked[0] == ("v.test", liar, f"make_{verb}")
            ours = [message for by, message in signed if by == key]
            for message in ours:
                assert message["type"] == "m.room.member", evil
                assert message["sender"] == message["state_key"] == VIC, evil
                assert message["room_id"] == room_id, evil
                assert message["content"]["membership"] == verb, evil
                assert "redacts" not in message, evil
            assert 1 <= len(ours) <= 2, evil  # a template with nothing bad but what we don't take
            assert membership_of(v if verb == "leave" else h, room_id, VIC) == verb, evil


async def _room(world: World, verb: str) -> str:
    h = world.servers["h.test"]
    rule = {"join": "public", "leave": "invite", "knock": "knock"}[verb]
    rules = {"type": "m.room.join_rules", "content": {"join_rule": rule}}
    room_id = await h.create("@alice:h.test", {"initial_state": [rules]})
    if verb == "leave":
        await h.invite("@alice:h.test", room_id, VIC)
    return room_id


async def _do(v: Any, verb: str, room_id: str) -> None:
    if verb == "leave":
        await v.leave(VIC, room_id)
    else:
        await getattr(v, verb)(VIC, room_id, via=["e.test", "h.test"])


def _evil(change: JsonObject) -> Any:
    async def hook(honest: Any, asker: str, room_id: str, user_id: str) -> Any:
        event = {
            "type": "m.room.member",
            "room_id": room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": {"membership": "join"},
            "depth": 2**70,
            "prev_events": ["$x"],
            "auth_events": ["$x"],
        }
        return {"event": {**event, **change}, "room_version": "12"}

    return hook


async def test_a_content_that_is_too_large_is_the_users_own_fault(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test") as world:
        v, h = world.servers["v.test"], world.servers["h.test"]
        room_id = await h.create("@alice:h.test", {"preset": "public_chat"})
        with pytest.raises(MatrixError) as refused:
            await v.join(VIC, room_id, via=["h.test"], content={"reason": "x" * 70_000})
        assert (refused.value.status, refused.value.errcode) == (413, "M_TOO_LARGE")
        assert rows_of(v) == {}
        await v.join(VIC, room_id, via=["h.test"])
        assert stored(v, next(iter(v.parts.head(room_id).tips))) is not None
