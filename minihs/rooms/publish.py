# SPDX-License-Identifier: Apache-2.0
"""An event of our own user from beginning to end: composed, recommended by the room's policy server if it has
one, stored, sent on. Runs in the room's task.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import forbidden
from minihs.rooms.admission import Source
from minihs.rooms.compose import compose
from minihs.rooms.entry import ClientTxn
from minihs.rooms.head import Head
from minihs.rooms.parts import Parts
from minihs.rooms.placement import place_live
from minihs.rooms.policy import Policies, is_recommended, policy_server_of
from minihs.store import client_txns, rooms
from minihs.store.events import Outcome


async def publish(
    parts: Parts,
    head: Head,
    *,
    sender: str,
    type: str,
    content: JsonObject,
    state_key: str | None = None,
    redacts: str | None = None,
    txn: ClientTxn | None = None,
    extra_hosts: Collection[str] = (),
    ts: int | None = None,
) -> str:
    """The event's id. Raises MatrixError, with nothing stored. `head` is used up."""
    policy = policy_server_of(parts.graph, head)
    batch = parts.batch(head)
    entry = compose(
        parts,
        batch,
        sender=sender,
        type=type,
        content=content,
        state_key=state_key,
        redacts=redacts,
        txn=txn,
        extra_hosts=extra_hosts,
        ts=ts,
    )
    event = entry.event
    if policy is None or is_recommended(policy, event):
        await batch.commit()
        return event.event_id
    batch.discard()
    event = await parts.tasks.aside(head.room_id, partial(Policies(parts).sign_ours, policy, event))
    # The room may have changed meanwhile, and the client may have repeated its request.
    if txn is not None:
        before = client_txns.find(parts.db.read, txn.user_id, txn.device_id, txn.scope, txn.txn_id)
        if before is not None:
            return before
    batch = parts.batch(parts.take_head(head.room_id))
    try:
        placed = place_live(batch, event, parts.now(), Source.COUNTERSIGNED)
        if placed.outcome is not Outcome.ACCEPTED:
            raise forbidden(f"The room changed meanwhile: {placed.reason}")
        placed.hosts = {*rooms.hosts(parts.db.read, batch.head.room_nid), *extra_hosts} - {parts.our_name}
        placed.txn = txn
        await batch.commit()
    except BaseException:
        batch.discard()
        raise
    return event.event_id
