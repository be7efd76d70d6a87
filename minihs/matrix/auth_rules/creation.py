# SPDX-License-Identifier: Apache-2.0
"""Rule 1 of every room version: the create event, which is judged by nothing but itself."""

from __future__ import annotations

from minihs.matrix.auth_rules.errors import AuthError
from minihs.matrix.event import Event
from minihs.matrix.ids import domain_of, is_user_id
from minihs.matrix.room_versions import ROOM_VERSIONS


def allow_create(event: Event) -> str:
    """The number of the point that allows the event; AuthError if none does.

    That `content.room_version` is the version by which the event was parsed is for the caller to see to:
    the rule asks only whether it is known.
    """
    # 1.1
    if event.prev_events:
        raise AuthError("1.1", "a create event has nothing before it")
    # 1.2, in its old and its new form (v12)
    if event.version.room_id_is_create_hash:
        if "room_id" in event.json:
            raise AuthError("1.2", "a create event has no room id, it makes it")
    elif ":" not in event.room_id or domain_of(event.room_id) != domain_of(event.sender):
        raise AuthError("1.2", "the room id is not of the creator's server")
    # 1.3
    if "room_version" in event.content:
        version = event.content["room_version"]
        if not isinstance(version, str) or version not in ROOM_VERSIONS:
            raise AuthError("1.3", "the room version is not known")
    # 1.4 until v10
    if event.version.creator_in_content:
        if "creator" not in event.content:
            raise AuthError("1.4", "there is no creator")
        return "1.5"
    # 1.4 in v12
    if event.version.privileged_creators:
        if "additional_creators" in event.content:
            more = event.content["additional_creators"]
            if not isinstance(more, list) or not all(is_user_id(user) for user in more):
                raise AuthError("1.4", "additional_creators is not a list of user ids")
        return "1.5"
    return "1.4"
