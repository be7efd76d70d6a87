# SPDX-License-Identifier: Apache-2.0
"""Relations that our own users may not make (client-server-api, "Validation of m.thread relationships",
"Avoiding duplicate annotations"). Those that come from other servers are taken as they are."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError
from minihs.matrix.relations import ANNOTATION, THREAD, relation_of
from minihs.store import relations
from minihs.store.reader import Reader


def check_relation(db: Reader, room_nid: int, sender: str, type: str, content: JsonObject) -> None:
    """Call in the room's task, so that no second request comes in between."""
    relation = relation_of(type, None, content)
    if relation is None:
        return
    if relation.rel_type == THREAD and relations.is_related(db, room_nid, relation.parent_id):
        raise MatrixError(400, "M_UNKNOWN", "An event that itself relates to another one begins no thread.")
    if (
        relation.rel_type == ANNOTATION
        and relation.key is not None
        and relations.has_annotation(
            db, room_nid, relation.parent_id, sender=sender, type=type, key=relation.key
        )
    ):
        raise MatrixError(
            400, "M_DUPLICATE_ANNOTATION", "You have reacted to this event in this way already."
        )
