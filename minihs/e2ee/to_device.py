# SPDX-License-Identifier: Apache-2.0
"""Messages to devices: from clients, to other servers, and from them.

(client-server-api and server-server-api, "Send-to-device messaging".)
"""

from __future__ import annotations

from collections.abc import Iterator

from minihs.matrix.canonical import BadJson, JsonObject, check_depth, dumps
from minihs.matrix.errors import bad_json, invalid_param, too_large
from minihs.matrix.fields import identifier, required_object
from minihs.matrix.ids import domain_of, fits, is_user_id
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import to_device
from minihs.store.database import Database, Tx
from minihs.store.outbound_edus import queue_edu

type Messages = dict[str, dict[str, JsonObject]]
"""User id → device id → content."""

MAX_USERS = 10_000

MAX_CONTENT_BYTES = 64 * 1024
"""Of one message, as for an event."""

MAX_EDU_BYTES = 64 * 1024
"""Other servers take no larger EDUs for granted; messages beyond this go into another one."""


class ToDevice:
    """The to-device messages of one server."""

    def __init__(self, db: Database, runtime: Runtime, server_name: str) -> None:
        self._db = db
        self._runtime = runtime
        self._server_name = server_name

    async def send(self, requester: Requester, event_type: str, txn_id: str, body: JsonObject) -> None:
        """PUT /sendToDevice/{eventType}/{txnId}: once, however often it is repeated."""
        identifier(event_type, "eventType")
        identifier(txn_id, "txnId")
        messages = checked_messages(required_object(body, "messages"))
        local = {user: of for user, of in messages.items() if domain_of(user) == self._server_name}
        remote: dict[str, Messages] = {}
        for user_id, of_user in messages.items():
            if user_id not in local:
                remote.setdefault(domain_of(user_id), {})[user_id] = of_user
        edus = [
            (host, self._edu(requester.user_id, event_type, part))
            for host, of_host in remote.items()
            for part in split(of_host)
        ]
        now = self._runtime.clock.now_ms()

        def write(tx: Tx) -> None:
            if not to_device.first_time(
                tx, requester.user_id, requester.device_id, event_type, txn_id, now=now
            ):
                return
            deliver(tx, requester.user_id, event_type, local)
            for host, content in edus:
                queue_edu(tx, host, "m.direct_to_device", content)

        await self._db.write(write)

    def _edu(self, sender: str, event_type: str, messages: Messages) -> JsonObject:
        message_id = self._runtime.random.token_urlsafe(18)
        return {"sender": sender, "type": event_type, "message_id": message_id, "messages": messages}

    async def receive(self, origin: str, content: JsonObject) -> None:
        """An m.direct_to_device EDU. What is malformed in it is left out."""
        sender, event_type = content.get("sender"), content.get("type")
        message_id, messages = content.get("message_id"), content.get("messages")
        if not is_user_id(sender) or domain_of(sender) != origin:
            return
        if (
            not isinstance(event_type, str)
            or not isinstance(message_id, str)
            or not isinstance(messages, dict)
        ):
            return
        if not fits(event_type) or not fits(message_id):
            return
        local = {
            user_id: {
                device_id: message
                for device_id, message in of_user.items()
                if isinstance(message, dict) and fits(device_id)
            }
            for user_id, of_user in messages.items()
            if is_user_id(user_id) and domain_of(user_id) == self._server_name and isinstance(of_user, dict)
        }
        now = self._runtime.clock.now_ms()

        def write(tx: Tx) -> None:
            if to_device.first_time(tx, sender, "", origin, message_id, now=now):
                deliver(tx, sender, event_type, local)

        await self._db.write(write)


def deliver(tx: Tx, sender: str, event_type: str, messages: Messages) -> None:
    for user_id, of_user in messages.items():
        for device_id, content in of_user.items():
            to_device.add(tx, user_id, device_id, sender, event_type, content)


def checked_messages(messages: JsonObject) -> Messages:
    if len(messages) > MAX_USERS:
        raise invalid_param(f"At most {MAX_USERS} users can be written to at once.")
    for user_id, of_user in messages.items():
        if not is_user_id(user_id):
            raise invalid_param("messages hold something that is not a user id.")
        if not isinstance(of_user, dict):
            raise bad_json("messages must map users to devices to contents.")
        for content in of_user.values():
            if not isinstance(content, dict):
                raise bad_json("The content of each message must be an object.")
            if len(dumps(content)) > MAX_CONTENT_BYTES:
                raise too_large(f"A message has more than {MAX_CONTENT_BYTES} bytes.")
            try:
                check_depth(content)
            except BadJson as error:
                raise bad_json("The content of a message is nested too deeply.") from error
    return messages


def split(messages: Messages) -> Iterator[Messages]:
    """Parts that fit into one EDU each."""
    part: Messages = {}
    size = 0
    for user_id, of_user in messages.items():
        for device_id, content in of_user.items():
            length = len(dumps(content)) + len(user_id) + len(device_id) + 10
            if part and size + length > MAX_EDU_BYTES:
                yield part
                part, size = {}, 0
            part.setdefault(user_id, {})[device_id] = content
            size += length
    if part:
        yield part
