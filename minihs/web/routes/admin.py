# SPDX-License-Identifier: Apache-2.0
"""What the `minihs` command asks of the server while it runs.

Only the socket `admin.sock` in the data folder answers these; who may open it owns the server anyway.
"""

from __future__ import annotations

from minihs.matrix.errors import not_found
from minihs.matrix.fields import flag, optional_text, required_text
from minihs.users.passwords import MAX_PASSWORD_BYTES
from minihs.web.routing import NONE, Call, JsonObject, Routes

routes = Routes()


@routes.post("/_minihs/admin/users", auth=NONE)
async def add_user(call: Call) -> JsonObject:
    """{"name": localpart, "password": ..., "admin": false} -> {"user_id": ...}"""
    body = await call.json()
    user_id = await call.services.users.create_account(
        required_text(body, "name"),
        optional_text(body, "password", limit=MAX_PASSWORD_BYTES),
        flag(body, "admin"),
    )
    return {"user_id": user_id}


@routes.post("/_minihs/admin/push_test", auth=NONE)
async def push_test(call: Call) -> JsonObject:
    """{"user_id": ...} -> {"results": {app_id: what came of it}}"""
    user_id = required_text(await call.json(), "user_id")
    if not call.services.users.exists(user_id):
        raise not_found("There is no such account on this server.")
    return {"results": await call.services.pushers.test(user_id)}
