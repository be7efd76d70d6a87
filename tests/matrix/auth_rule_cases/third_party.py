# SPDX-License-Identifier: Apache-2.0
"""Invites that redeem a third-party invite."""

from __future__ import annotations

from typing import Any

from minihs.matrix.signatures import SigningKey, sign_json
from tests.matrix.auth_rule_cases.registry import case, case_of
from tests.matrix.auth_world import ADMIN, OTHER, STRANGER, USER, Judgement, World

# ---- 5.3.1: third-party invites ----

KEY = SigningKey(b"k" * 32, "1")
WRONG_KEY = SigningKey(b"w" * 32, "1")
TOKEN = "token"


def signed(mxid: Any = STRANGER, token: Any = TOKEN, key: SigningKey = KEY) -> dict[str, Any]:
    return sign_json({"mxid": mxid, "token": token, "sender": USER}, "id.test", key)


def offer(w: World, content: dict[str, Any] | None = None, sender: str = USER) -> None:
    w.put(
        w.event(
            "m.room.third_party_invite",
            sender,
            content if content is not None else {"public_key": KEY.verify_key_base64},
            "token",
        )
    )


def third_party(w: World, value: Any, sender: str = USER, target: str = STRANGER) -> Judgement:
    return w.membership(sender, target, "invite", third_party_invite=value)


@case("3pid: banned", "- the target is banned")
def _(w: World) -> Judgement:
    offer(w)
    w.member(STRANGER, "ban", ADMIN)
    return third_party(w, {"signed": signed()})


for unsigned in (None, {}, [], "signed", 1, True, {"signed": None}, {"signed": "x"}, {"signed": []}):

    @case("3pid: not signed", f"- the third-party invite {unsigned!r}")
    def _(w: World, unsigned: Any = unsigned) -> Judgement:
        offer(w)
        return third_party(w, unsigned)


for missing in ("mxid", "token"):

    @case("3pid: no mxid or token", f"- no {missing} was signed")
    def _(w: World, missing: str = missing) -> Judgement:
        offer(w)
        return third_party(w, {"signed": {k: v for k, v in signed().items() if k != missing}})


for mxid in (USER, None, 1, [STRANGER], ""):

    @case("3pid: other mxid", f"- the user {mxid!r} was signed and not the target")
    def _(w: World, mxid: Any = mxid) -> Judgement:
        offer(w)
        return third_party(w, {"signed": signed(mxid=mxid)})


case_of("3pid: no offer", "- there is no such token", lambda w: third_party(w, {"signed": signed()}))
for token in (None, 1, True, ["token"], {"token": 1}, "other"):

    @case("3pid: no offer", f"- the token {token!r}")
    def _(w: World, token: Any = token) -> Judgement:
        offer(w)
        return third_party(w, {"signed": signed(token=token)})


@case("3pid: other sender", "- the invite was another user's")
def _(w: World) -> Judgement:
    offer(w, sender=ADMIN)
    return third_party(w, {"signed": signed()})


PUBLIC = KEY.verify_key_base64
WRONG = WRONG_KEY.verify_key_base64
GOOD_OFFERS: dict[str, dict[str, Any]] = {
    "the one key": {"public_key": PUBLIC},
    "the URL-safe key": {"public_key": PUBLIC.replace("+", "-").replace("/", "_")},
    "one of several keys": {
        "public_key": WRONG,
        "public_keys": [{"public_key": WRONG}, {"public_key": PUBLIC}],
    },
    "a key among rubbish": {
        "public_key": 5,
        "public_keys": [None, "x", {"public_key": []}, {"public_key": PUBLIC}],
    },
}
for name, content in GOOD_OFFERS.items():

    @case("3pid: signature fits", f"+ signed with {name}")
    def _(w: World, content: dict[str, Any] = content) -> Judgement:
        offer(w, content)
        return third_party(w, {"signed": signed(), "display_name": "x"})


@case("3pid: signature fits", "+ the sender neither in the room nor with power to invite")
def _(w: World) -> Judgement:
    offer(w, sender=STRANGER)
    w.set_levels(invite=100)
    return third_party(w, {"signed": signed(OTHER)}, sender=STRANGER, target=OTHER)


BAD_OFFERS: dict[str, dict[str, Any]] = {
    "another key": {"public_key": WRONG},
    "no key": {},
    "a key that is none": {"public_key": "!!!"},
    "a key that is too short": {"public_key": "AAAA"},
    "keys that are no list": {"public_keys": {"public_key": PUBLIC}},
}
for name, content in BAD_OFFERS.items():

    @case("3pid: otherwise", f"- signed, but the offer has {name}")
    def _(w: World, content: dict[str, Any] = content) -> Judgement:
        offer(w, content)
        return third_party(w, {"signed": signed()})


RIGHT = signed()["signatures"]["id.test"]["ed25519:1"]
for signatures in (
    None,
    [],
    "x",
    {},
    {"id.test": None},
    {"id.test": []},
    {"id.test": {}},
    {"id.test": {"ed25519:1": None}},
    {"id.test": {"ed25519:1": "%"}},
    {"id.test": {"ed25519:1": "AAAA"}},
    {"id.test": {"rsa:1": RIGHT}},
):

    @case("3pid: otherwise", f"- signatures {str(signatures)[:50]}")
    def _(w: World, signatures: Any = signatures) -> Judgement:
        offer(w)
        return third_party(w, {"signed": {**signed(), "signatures": signatures}})


@case("3pid: otherwise", "- signed for another token")
def _(w: World) -> Judgement:
    offer(w)
    return third_party(w, {"signed": {**signed(token="other"), "token": "token"}})
