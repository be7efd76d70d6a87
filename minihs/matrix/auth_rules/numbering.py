# SPDX-License-Identifier: Apache-2.0
"""The numbers that the authorisation rules have in the text of each room version (spec: rooms/v1 … v12).

The twelve texts are one set of rules that grew, and a rule that came or went moved the numbers of those after
it. The code in this package has each rule once; which of them exist in a version is told by `RoomVersion`,
and under what number they stand there by this table. Errors name rules by it, so that an operator can look
them up.

Numbers are those a reader sees: in the rendered text of version 12 the list under rule 3 counts on without a
gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minihs.matrix.room_versions import RoomVersion


@dataclass(frozen=True, slots=True)
class Numbering:
    """Each number is of the top level, or within the rule that its name begins with. 0: not in this
    version."""

    # Rule 1 is m.room.create everywhere, and what can differ in it is always point 4.
    room_id: int = 0
    auth_events: int = 2
    auth_events_create: int = 4
    auth_events_room: int = 5
    federate: int = 3
    aliases: int = 4

    member: int = 5
    member_authorised: int = 0
    member_join: int = 2
    member_invite: int = 3
    member_leave: int = 4
    member_ban: int = 5
    member_knock: int = 0
    member_unknown: int = 6
    join_restricted: int = 0
    join_public: int = 5
    join_otherwise: int = 6

    not_joined: int = 6
    third_party_invite: int = 7
    required_level: int = 8
    state_key: int = 9

    power_levels: int = 10
    levels_scalars: int = 0
    levels_maps: int = 0
    levels_users: int = 1
    levels_creators: int = 0
    levels_first: int = 2
    """The five comparisons with the previous levels follow this one, and then "otherwise, allow"."""

    redaction: int = 11
    otherwise: int = 12

    def level_change(self, step: int) -> str:
        """The number of the `step`th comparison with the previous levels."""
        return f"{self.power_levels}.{self.levels_first + step}"

    def of_room(self, version: RoomVersion) -> tuple[str, str]:
        """The rules against a state without a create event, and against one of another room."""
        if version.room_id_is_create_hash:
            return str(self.room_id), str(self.room_id)
        return f"{self.auth_events}.{self.auth_events_create}", f"{self.auth_events}.{self.auth_events_room}"


_V1 = Numbering()
_V3 = replace(_V1, redaction=0, otherwise=11)
_V6 = replace(
    _V3,
    aliases=0,
    member=4,
    not_joined=5,
    third_party_invite=6,
    required_level=7,
    state_key=8,
    power_levels=9,
    otherwise=10,
)
_V7 = replace(_V6, member_knock=6, member_unknown=7)
_V8 = replace(
    _V7,
    member_authorised=2,
    member_join=3,
    member_invite=4,
    member_leave=5,
    member_ban=6,
    member_knock=7,
    member_unknown=8,
    join_restricted=5,
    join_public=6,
    join_otherwise=7,
)
_V10 = replace(_V8, levels_scalars=1, levels_maps=2, levels_users=3, levels_first=4)
_V12 = replace(
    _V10,
    room_id=2,
    auth_events=3,
    auth_events_create=0,
    auth_events_room=4,
    federate=4,
    member=5,
    not_joined=6,
    third_party_invite=7,
    required_level=8,
    state_key=9,
    power_levels=10,
    levels_creators=4,
    levels_first=5,
    otherwise=11,
)

_NUMBERINGS = {
    "1": _V1,
    "2": _V1,
    "3": _V3,
    "4": _V3,
    "5": _V3,
    "6": _V6,
    "7": _V7,
    "8": _V8,
    "9": _V8,
    "10": _V10,
    "11": _V10,
    "12": _V12,
}


def numbering_of(version: RoomVersion) -> Numbering:
    return _NUMBERINGS[version.version]
