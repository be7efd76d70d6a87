# SPDX-License-Identifier: Apache-2.0
"""How an event relates to another one (client-server-api, "Forming relationships between events")."""

from __future__ import annotations

from typing import NamedTuple

from minihs.matrix.ids import MAX_LENGTH, fits, is_event_id

THREAD = "m.thread"
REPLACE = "m.replace"
REFERENCE = "m.reference"
ANNOTATION = "m.annotation"

ENCRYPTED = "m.room.encrypted"


class Relation(NamedTuple):
    rel_type: str
    parent_id: str
    key: str | None
    """Of an annotation: a reaction's emoji, say. Cut off where no honest one is that long."""
    whole: bool
    """False: an edit that can't take effect, since it is state, or has no `m.new_content` (which an encrypted
    one keeps where no server sees it)."""


def relation_of(event_type: str, state_key: str | None, content: object) -> Relation | None:
    """The relation that an event says it has; None: none, or one that breaks the schema. A reply is none: it
    has no `rel_type`."""
    relates = content.get("m.relates_to") if isinstance(content, dict) else None
    if not isinstance(relates, dict):
        return None
    rel_type, parent_id, key = relates.get("rel_type"), relates.get("event_id"), relates.get("key")
    if not isinstance(rel_type, str) or not rel_type or not fits(rel_type) or not is_event_id(parent_id):
        return None
    if rel_type != ANNOTATION or not isinstance(key, str):
        key = None
    return Relation(
        rel_type,
        parent_id,
        None if key is None else key[:MAX_LENGTH],
        rel_type != REPLACE or _can_replace(event_type, state_key, content),
    )


def _can_replace(event_type: str, state_key: str | None, content: object) -> bool:
    new = content.get("m.new_content") if isinstance(content, dict) else None
    return state_key is None and (event_type == ENCRYPTED or isinstance(new, dict))
