# SPDX-License-Identifier: Apache-2.0
"""Room versions as data (spec: rooms/index and rooms/v1 to rooms/v12).

Each version is what changed since the one before. Code asks for the property it depends on and never compares
version numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class RoomVersion:
    """What the algorithms of one room version do. The fields name the section that introduced each."""

    version: str
    """The `room_version` of the create event."""

    # ---- format of events ----

    event_format: Literal[1, 2, 3] = 1
    """How events are named and refer to each other.
    1: `event_id` inside the event, references are `[id, {"sha256": hash}]` pairs (rooms/v1, "Event IDs");
    2: the id is `$` and the reference hash in base64, references are ids (rooms/v3, "Event IDs");
    3: the same in URL-safe base64 (rooms/v4, "Event IDs")."""

    strict_json: bool = False
    """Events must be Canonical JSON: no floats, integers within ±(2^53-1) (rooms/v6, "Canonical JSON")."""

    room_id_is_create_hash: bool = False
    """The room id is `!` and the hash of the create event, which itself has no `room_id`; the create event is
    then never among `auth_events` (rooms/v12, "Event format" and rules 1.2, 2 and 3.2)."""

    redaction: Literal["v1", "v6", "v8", "v9", "v11"] = "v1"
    """Which keys survive a redaction (rooms/v1, v6, v8, v9 and v11, "Redactions")."""

    redacts_in_content: bool = False
    """A redaction names its target in `content.redacts` instead of `redacts` (rooms/v11, "Moving the
    `redacts` property")."""

    # ---- signatures ----

    event_id_server_signs: bool = True
    """The server in the event id must have signed too, when it is not the sender's (server-server-api,
    "Validating hashes and signatures on received events"; versions 1 and 2)."""

    enforce_key_validity: bool = False
    """A key only verifies events not after its `valid_until_ts` (rooms/v5, "Signing key validity period")."""

    # ---- state resolution ----

    state_res: Literal["v1", "v2", "v2.1"] = "v1"
    """rooms/v1, rooms/v2 and rooms/v12, "State resolution"."""

    # ---- authorisation rules ----

    creator_in_content: bool = True
    """The create event must have `content.creator`, and that is the creator; otherwise its sender is
    (rooms/v1 rule 1.4; dropped in rooms/v11, "Remove the `creator` property")."""

    create_event_in_auth_events: bool = True
    """The create event is selected for `auth_events` and must be among them; since rooms/v12 it must not be
    (rules 3.2 and the missing 3.4)."""

    special_aliases_rule: bool = True
    """`m.room.aliases` needs a state key equal to the sender's domain and nothing else (rooms/v1 rule 4,
    dropped in rooms/v6, "Authorisation rules")."""

    redactions_in_auth_rules: bool = True
    """`m.room.redaction` is allowed by the redact level or the domain of the target's id (rooms/v1 rule 11).
    Dropped in rooms/v3, where "Handling redactions" decides later whether to apply it."""

    check_notification_levels: bool = False
    """Changes of `notifications` in power levels are checked like those of `events` (rooms/v6 rule 9.4)."""

    knock: bool = False
    """The join rule `knock` and the membership `knock` (rooms/v7, "Authorisation rules")."""

    restricted_join: bool = False
    """The join rule `restricted`, with `join_authorised_via_users_server` signed for by that user's server
    (rooms/v8, "Authorisation rules")."""

    knock_restricted: bool = False
    """The join rule `knock_restricted` (rooms/v10, "Authorisation rules")."""

    integer_power_levels: bool = False
    """Power levels must be integers, no strings (rooms/v10 rules 9.1 and 9.2). Floats end with
    `strict_json`."""

    privileged_creators: bool = False
    """The sender of the create event and its `additional_creators` have infinite power and may not be
    listed in power levels (rooms/v12 rules 1.4 and 10.4)."""

    def __str__(self) -> str:
        return self.version


_V1 = RoomVersion(version="1")
_V2 = replace(_V1, version="2", state_res="v2")
_V3 = replace(_V2, version="3", event_format=2, event_id_server_signs=False, redactions_in_auth_rules=False)
_V4 = replace(_V3, version="4", event_format=3)
_V5 = replace(_V4, version="5", enforce_key_validity=True)
_V6 = replace(
    _V5,
    version="6",
    strict_json=True,
    redaction="v6",
    special_aliases_rule=False,
    check_notification_levels=True,
)
_V7 = replace(_V6, version="7", knock=True)
_V8 = replace(_V7, version="8", restricted_join=True, redaction="v8")
_V9 = replace(_V8, version="9", redaction="v9")
_V10 = replace(_V9, version="10", knock_restricted=True, integer_power_levels=True)
_V11 = replace(_V10, version="11", redaction="v11", redacts_in_content=True, creator_in_content=False)
_V12 = replace(
    _V11,
    version="12",
    room_id_is_create_hash=True,
    create_event_in_auth_events=False,
    privileged_creators=True,
    state_res="v2.1",
)

ROOM_VERSIONS: dict[str, RoomVersion] = {
    version.version: version for version in (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12)
}
"""Every version this server takes part in, all of them stable."""

DEFAULT_ROOM_VERSION = "12"
"""What new rooms should be made with (rooms/index, "Complete list of room versions")."""
