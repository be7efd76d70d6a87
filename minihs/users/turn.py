# SPDX-License-Identifier: Apache-2.0
"""Credentials for a TURN server, made from the secret that it shares with us.

(client-server-api, "Voice over IP"; the way of coturn and others is that of draft-uberti-behave-turn-rest:
the user name says until when it is good, the password is its HMAC.)
"""

from __future__ import annotations

import base64
import hmac

from minihs.config import Turn
from minihs.matrix.canonical import JsonObject


def credentials(turn: Turn, user_id: str, *, now: int) -> JsonObject:
    """GET /voip/turnServer; {} if there is no TURN server, at which clients go on without."""
    if not turn.uris:
        return {}
    ttl = turn.lifetime_minutes * 60
    username = f"{now // 1000 + ttl}:{user_id}"
    mac = hmac.digest(turn.shared_secret.encode(), username.encode(), "sha1")
    password = base64.b64encode(mac).decode()
    return {"username": username, "password": password, "uris": turn.uris, "ttl": ttl}
