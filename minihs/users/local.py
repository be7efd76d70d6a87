# SPDX-License-Identifier: Apache-2.0
"""What rooms ask about the accounts of this server; read from the database, so rooms can be built first."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError
from minihs.store import account_data, profiles
from minihs.store import users as user_store
from minihs.store.database import Database

INVITE_PERMISSION = "m.invite_permission_config"


class LocalUsers:
    def __init__(self, db: Database) -> None:
        self._db = db

    def exists(self, user_id: str) -> bool:
        """An account that was not deactivated."""
        return user_store.is_active(self._db.read, user_id)

    def member_profile(self, user_id: str) -> JsonObject:
        """displayname and avatar_url, those that are set, as a member event has them."""
        displayname, avatar_url = profiles.display(self._db.read, user_id)
        fields = {"displayname": displayname, "avatar_url": avatar_url}
        return {name: value for name, value in fields.items() if value is not None}

    def check_may_invite(self, sender: str, target: str) -> None:
        """M_INVITE_BLOCKED if the target wants no invites (client-server-api, "Invite permission")."""
        if self.blocks_invites(target):
            raise MatrixError(403, "M_INVITE_BLOCKED", "This user does not accept invites.")

    def blocks_invites(self, user_id: str) -> bool:
        """Invites that are there already are kept from the user's /sync meanwhile."""
        content = account_data.get(self._db.read, user_id, INVITE_PERMISSION)
        return content is not None and content.get("default_action") == "block"
