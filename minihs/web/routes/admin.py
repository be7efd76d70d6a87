# SPDX-License-Identifier: Apache-2.0
"""What the `minihs` command asks of the server while it runs.

Only the socket `admin.sock` in the data folder answers these; who may open it owns the server anyway.
"""

from __future__ import annotations

from minihs.federation import peers
from minihs.matrix.errors import invalid_param, not_found
from minihs.matrix.fields import flag, number, optional_text, required_text
from minihs.matrix.ids import is_server_name
from minihs.rooms import explain
from minihs.users.accounts import MAX_INVITATION_DAYS
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


@routes.post("/_minihs/admin/users/password", auth=NONE)
async def reset_password(call: Call) -> JsonObject:
    """{"user_id": ..., "password": ..., "log_out": false} -> {}"""
    body = await call.json()
    password = required_text(body, "password", limit=MAX_PASSWORD_BYTES)
    await call.services.users.reset_password(
        required_text(body, "user_id"), password, log_out=flag(body, "log_out")
    )
    return {}


@routes.post("/_minihs/admin/invitations", auth=NONE)
async def invite_user(call: Call) -> JsonObject:
    """{"days": 7} -> {"token": ..., "expires_ts": ...}: good for one account"""
    days = number(await call.json(), "days", 0)
    if not 1 <= days <= MAX_INVITATION_DAYS:
        raise invalid_param(f"days must be from 1 to {MAX_INVITATION_DAYS}.")
    return await call.services.users.accounts.invite(days)


@routes.post("/_minihs/admin/push_test", auth=NONE)
async def push_test(call: Call) -> JsonObject:
    """{"user_id": ...} -> {"results": {app_id: what came of it}}"""
    user_id = required_text(await call.json(), "user_id")
    if not call.services.users.exists(user_id):
        raise not_found("There is no such account on this server.")
    return {"results": await call.services.pushers.test(user_id)}


@routes.post("/_minihs/admin/explain", auth=NONE)
async def explain_something(call: Call) -> JsonObject:
    """{"event": id} or {"room": id, "type": ..., "state_key": ...} -> what rooms/explain.py says"""
    body = await call.json()
    event_id = optional_text(body, "event")
    if event_id is not None:
        return await call.services.db.scan(lambda db: explain.explain_event(db, event_id))
    room_id, type = required_text(body, "room"), optional_text(body, "type")
    if type is None:
        now = call.services.runtime.clock.now_ms()
        return await call.services.db.scan(lambda db: explain.explain_room(db, room_id, now))
    state_key = optional_text(body, "state_key") or ""
    return await call.services.db.scan(lambda db: explain.explain_state(db, room_id, type, state_key))


@routes.post("/_minihs/admin/peers", auth=NONE)
async def list_peers(call: Call) -> JsonObject:
    """-> {"peers": [...]}: see federation/peers.py; `sender` is what its sender is doing."""
    found = await call.services.db.scan(peers.peers)
    for peer in found:
        peer["sender"] = call.services.senders.state_of(peer["host"])
    return {"peers": found}


@routes.post("/_minihs/admin/peers/retry", auth=NONE)
async def retry_peer(call: Call) -> JsonObject:
    """{"host": ...} -> {}: end its pause"""
    host = required_text(await call.json(), "host")
    if not is_server_name(host):
        raise invalid_param("That is no server name.")
    call.services.federation.heard_from(host)
    call.services.senders.retry_now(host)
    return {}
