# SPDX-License-Identifier: Apache-2.0
"""PUT /send (spec: server-server-api, "Transactions")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import invalid_param
from minihs.web.routing import FEDERATION, MAX_CARRIED_DEPTH, TRANSACTION_BODY_CAP, Call, Routes

routes = Routes()


@routes.put(
    "/_matrix/federation/v1/send/{txn_id}",
    also=["/_matrix/federation/v1/send/{txn_id}/"],
    auth=FEDERATION,
    body_cap=TRANSACTION_BODY_CAP,
    max_depth=MAX_CARRIED_DEPTH,
)
async def send(call: Call, txn_id: str) -> JsonObject:
    if len(txn_id) > 255:
        raise invalid_param("The transaction id is too long.")
    return await call.services.rooms.transactions.receive(call.origin, txn_id, await call.json())
