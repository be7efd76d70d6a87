# SPDX-License-Identifier: Apache-2.0
"""What this server speaks: GET /versions and GET /capabilities (client-server-api, "API Standards")."""

from __future__ import annotations

from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.web.routing import CLIENT, NONE, Call, JsonObject, Routes

routes = Routes()

SPEC_VERSIONS = ["r0.5.0", "r0.6.0", "r0.6.1", *(f"v1.{minor}" for minor in range(1, 20))]
"""All that we answer to, not only the newest: some clients refuse a server that names none of v1.1 to v1.9.
"""

UNSTABLE_FEATURES = {
    # Element sets up cross-signing only where it finds this, though the specification has it since 1.1.
    "org.matrix.e2e_cross_signing": True,
    # Sliding sync: Element X uses nothing else.
    "org.matrix.simplified_msc3575": True,
    "org.matrix.msc3814": True,
    # Names from before these were in the specification, for clients that look for nothing else.
    "uk.half-shot.msc2666.query_mutual_rooms": True,
    "uk.tcpip.msc4133": True,
    "uk.tcpip.msc4133.stable": True,
}


@routes.get("/_matrix/client/versions", auth=NONE)
async def versions(_: Call) -> JsonObject:
    return {"versions": SPEC_VERSIONS, "unstable_features": UNSTABLE_FEATURES}


@routes.get("/_matrix/client/v3/capabilities", auth=CLIENT)
async def capabilities(call: Call) -> JsonObject:
    moderation = {"m.account_moderation": {"suspend": True, "lock": True}} if call.requester.is_admin else {}
    return {
        "capabilities": {
            "m.room_versions": {
                "default": call.services.config.rooms.default_version,
                "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
            },
            "m.change_password": {"enabled": True},
            "m.profile_fields": {"enabled": True},
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": {"enabled": True},
            "m.3pid_changes": {"enabled": False},
            "m.get_login_token": {"enabled": True},
            "m.forget_forced_upon_leave": {"enabled": False},
            **moderation,
        }
    }
