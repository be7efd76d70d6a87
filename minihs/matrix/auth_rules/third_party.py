# SPDX-License-Identifier: Apache-2.0
"""Invites that accept a third-party invite: point 1 of the rule for `invite` (5.3.1 in v1–v5, 4.3.1 in
v6–v7, 4.4.1 in v8–v11, 5.4.1 in v12).

Such an invite needs no membership and no power of its sender. The signature of the identity server over the
token and the invited user is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from minihs.matrix import unpadded
from minihs.matrix.auth_rules.errors import AuthError
from minihs.matrix.auth_rules.levels import StateView
from minihs.matrix.event import Event
from minihs.matrix.signatures import SignatureError, verify_json

_MAX_KEYS = 16
_MAX_SIGNATURES = 16
"""How many different keys and signatures are tried, by their order as text. Identity servers use one or
two; two events full of them would cost a minute of verification each time the rule is asked."""


def allow_third_party_invite(event: Event, state: StateView, target_membership: str, rule: str) -> str:
    """The number of the point that allows the event; AuthError if none does. `rule` is the number of point
    1."""
    # .1
    if target_membership == "ban":
        raise AuthError(f"{rule}.1", "the invited user is banned")
    # .2
    invite = event.content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if not isinstance(signed, dict):
        raise AuthError(f"{rule}.2", "the third-party invite is not signed")
    # .3
    if "mxid" not in signed or "token" not in signed:
        raise AuthError(f"{rule}.3", "what is signed has no mxid or no token")
    # .4
    if signed["mxid"] != event.state_key:
        raise AuthError(f"{rule}.4", "another user's id was signed")
    # .5
    token = signed["token"]
    offer = state.get(("m.room.third_party_invite", token)) if isinstance(token, str) else None
    if offer is None:
        raise AuthError(f"{rule}.5", "there is no third-party invite with this token")
    # .6
    if event.sender != offer.sender:
        raise AuthError(f"{rule}.6", "the third-party invite was another user's")
    # .7
    keys = sorted(set(_public_keys(offer.content)))[:_MAX_KEYS]
    for server, key_id in islice(_signatures(signed), _MAX_SIGNATURES):
        for key in keys:
            if _is_signed(signed, server, key_id, key):
                return f"{rule}.7"
    # .8
    raise AuthError(f"{rule}.8", "no key of the third-party invite made any of the signatures")


def _public_keys(content: dict[str, object]) -> Iterator[bytes]:
    found = [content.get("public_key")]
    several = content.get("public_keys")
    if isinstance(several, list):
        found += [entry.get("public_key") for entry in several if isinstance(entry, dict)]
    for text in found:
        if isinstance(text, str):
            try:
                key = unpadded.decode(text)
            except ValueError:
                continue
            if len(key) == 32:
                yield key


def _signatures(signed: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Server and key id of each ed25519 signature, in order."""
    by_server = signed.get("signatures")
    if not isinstance(by_server, dict):
        return
    for server in sorted(by_server):
        by_key = by_server[server]
        if isinstance(by_key, dict):
            for key_id in sorted(by_key):
                if key_id.startswith("ed25519:"):
                    yield server, key_id


def _is_signed(signed: dict[str, object], server: str, key_id: str, key: bytes) -> bool:
    try:
        verify_json(signed, server, key_id, key)
    except SignatureError:
        return False
    return True
