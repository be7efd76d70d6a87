# SPDX-License-Identifier: Apache-2.0
"""The redaction algorithm: what is left of an event (spec: rooms/v1, v6, v8, v9 and v11, "Redactions").

Signatures and reference hashes cover the redacted form, so this is on the path of every event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.matrix.room_versions import RoomVersion


@dataclass(frozen=True, slots=True)
class _KeepList:
    event: frozenset[str]
    """Top-level keys that stay."""

    content: Mapping[str, frozenset[str]]
    """For each event type, the keys of `content` that stay. Types not listed keep none."""

    whole_create_content: bool = False
    """`m.room.create` keeps all of its content."""

    third_party_signed: bool = False
    """`m.room.member` keeps `third_party_invite`, and of that only `signed`."""


_V11_EVENT = frozenset(
    {
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    }
)

_V1 = _KeepList(
    event=_V11_EVENT | {"prev_state", "origin", "membership"},
    content={
        "m.room.member": frozenset({"membership"}),
        "m.room.create": frozenset({"creator"}),
        "m.room.join_rules": frozenset({"join_rule"}),
        "m.room.power_levels": frozenset(
            {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}
        ),
        "m.room.aliases": frozenset({"aliases"}),
        "m.room.history_visibility": frozenset({"history_visibility"}),
    },
)
_V6 = replace(_V1, content={**_V1.content, "m.room.aliases": frozenset()})
_V8 = replace(_V6, content={**_V6.content, "m.room.join_rules": frozenset({"join_rule", "allow"})})
_V9 = replace(
    _V8,
    content={**_V8.content, "m.room.member": frozenset({"membership", "join_authorised_via_users_server"})},
)
_V11 = replace(
    _V9,
    event=_V11_EVENT,
    content={
        **_V9.content,
        "m.room.power_levels": _V9.content["m.room.power_levels"] | {"invite"},
        "m.room.redaction": frozenset({"redacts"}),
    },
    whole_create_content=True,
    third_party_signed=True,
)

_KEEP_LISTS = {"v1": _V1, "v6": _V6, "v8": _V8, "v9": _V9, "v11": _V11}
_NOTHING: frozenset[str] = frozenset()


def redact(pdu: JsonObject, version: RoomVersion) -> JsonObject:
    """A redacted copy of `pdu`. What is kept is shared with the original, not copied."""
    keep = _KEEP_LISTS[version.redaction]
    if keep.event.issuperset(pdu):  # as of most events
        kept = dict(pdu)
    else:
        kept = {key: value for key, value in pdu.items() if key in keep.event}
    kept["content"] = _redact_content(keep, pdu.get("type"), pdu.get("content"))
    return kept


def _redact_content(keep: _KeepList, type_: object, content: object) -> JsonObject:
    if not isinstance(content, dict) or not isinstance(type_, str):
        return {}
    if keep.whole_create_content and type_ == "m.room.create":
        return content
    keys = keep.content.get(type_, _NOTHING)
    kept: dict[str, Any] = {key: content[key] for key in keys if key in content}
    if keep.third_party_signed and type_ == "m.room.member":
        invite = content.get("third_party_invite")
        if isinstance(invite, dict):
            # Without `signed` an empty object stays: the text leaves it open, and nearly every server in the
            # network does it so. Another choice would give such events other ids.
            kept["third_party_invite"] = {k: v for k, v in invite.items() if k == "signed"}
    return kept
