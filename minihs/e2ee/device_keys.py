# SPDX-License-Identifier: Apache-2.0
"""Keys of devices: upload, query, claim (client-server-api, "Key management API"; server-server-api,
"End-to-End Encryption").

Keys of remote users with whom none of ours shares a room are asked for each time; those of the others are
kept (`remote_devices`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from minihs.e2ee import ports
from minihs.e2ee.remote_answers import checked_claim_answer, checked_query_answer, user_keys
from minihs.e2ee.remote_devices import RemoteDevices
from minihs.e2ee.shapes import checked_device_keys, checked_one_time_keys
from minihs.matrix.canonical import MAX_INT, JsonObject
from minihs.matrix.errors import MatrixError, bad_json, invalid_param
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.fields import number, optional_object, required_object
from minihs.matrix.ids import domain_of, fits, is_user_id
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import cross_signing, device_keys, device_lists, devices, key_signatures, one_time_keys
from minihs.store import users as user_store
from minihs.store.database import Database, Reader, Tx
from minihs.store.remote_devices import UserKeys

MAX_ONE_TIME_KEYS = 1000
"""Unclaimed ones of one device; clients keep 50 to 100."""

MAX_CLAIMED = 20
"""Keys of one device in one claim."""

MAX_USERS = 10_000
"""Users in one query or claim."""

DEFAULT_TIMEOUT_MS = 10_000
MAX_TIMEOUT_MS = 30_000
MAX_HOSTS_AT_ONCE = 20

_KEY_MAPS = {
    "master": "master_keys",
    "self_signing": "self_signing_keys",
    "user_signing": "user_signing_keys",
}


class DeviceKeys:
    """The device keys of one server's users, and the way to those of others."""

    def __init__(
        self, db: Database, runtime: Runtime, server_name: str, federation: ports.Federation | None
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._server_name = server_name
        self._federation = federation
        self.remote = RemoteDevices(db, runtime, federation)

    async def upload(self, requester: Requester, body: JsonObject) -> JsonObject:
        """POST /keys/upload."""
        user_id, device_id = requester.user_id, requester.device_id
        identity = optional_object(body, "device_keys")
        if identity is not None:
            identity = checked_device_keys(identity, user_id, device_id)
        new = checked_one_time_keys(body, "one_time_keys")
        fallback = checked_one_time_keys(body, "fallback_keys")
        if len({key.algorithm for key in fallback}) != len(fallback):
            raise invalid_param("There can be one fallback key for each algorithm.")
        if identity is None and not new and not fallback:
            return {"one_time_key_counts": one_time_keys.counts(self._db.read, user_id, device_id)}
        now = self._runtime.clock.now_ms()

        def write(tx: Tx) -> dict[str, int]:
            if devices.get(tx, user_id, device_id) is None:
                raise MatrixError(401, "M_UNKNOWN_TOKEN", "The device was deleted.", soft_logout=False)
            if identity is not None and device_keys.put(tx, user_id, device_id, identity):
                device_lists.record_device_change(tx, user_id, device_id)
            taken = one_time_keys.add(tx, user_id, device_id, new, now=now)
            if taken is not None:
                raise invalid_param(f"One-time key {taken.algorithm}:{taken.key_id} is another key already.")
            for key in fallback:
                one_time_keys.set_fallback(tx, user_id, device_id, key)
            counts = one_time_keys.counts(tx, user_id, device_id)
            if sum(counts.values()) > MAX_ONE_TIME_KEYS:
                raise invalid_param(f"A device can have {MAX_ONE_TIME_KEYS} one-time keys.")
            tx.wake(f"device:{user_id}|{device_id}")
            return dict(counts)

        return {"one_time_key_counts": await self._db.write(write)}

    async def query(self, requester: Requester, body: JsonObject) -> JsonObject:
        """POST /keys/query."""
        wanted = checked_query(required_object(body, "device_keys"))
        timeout = timeout_of(body)
        local = {user: ids for user, ids in wanted.items() if domain_of(user) == self._server_name}
        remote = {user: ids for user, ids in wanted.items() if user not in local}
        answer: JsonObject = {"failures": {}, "device_keys": {}}
        answer |= {name: {} for name in _KEY_MAPS.values()}
        for user_id, device_ids in local.items():
            self._add_local(answer, user_id, device_ids, requester.user_id)

        unknown: dict[str, list[str]] = {}
        watched: list[str] = []
        for user_id, device_ids in remote.items():
            kept = self.remote.kept(user_id)
            if kept is not None:
                self._add_remote(answer, user_id, device_ids, kept, requester.user_id)
            elif self.remote.is_watched(user_id):
                watched.append(user_id)
                unknown[user_id] = []  # all devices, to be kept
            else:
                unknown[user_id] = device_ids
        mark = self.remote.begin(watched)

        async def ask(federation: ports.Federation, host: str, of_host: dict[str, list[str]]) -> None:
            checked = checked_query_answer(await federation.query_keys(host, of_host), of_host)
            found = {
                user_id: keys for user_id in of_host if (keys := user_keys(checked, user_id)) is not None
            }
            for user_id, keys in found.items():
                self._add_remote(answer, user_id, remote[user_id], keys, requester.user_id)
            await self.remote.keep(mark, found)

        try:
            answer["failures"] = await self._ask_all(unknown, timeout, ask)
        finally:
            self.remote.end(mark)
        return answer

    def _add_remote(
        self, answer: JsonObject, user_id: str, device_ids: list[str], keys: UserKeys, viewer: str
    ) -> None:
        answer["device_keys"][user_id] = {
            device_id: device
            for device_id, device in keys.devices.items()
            if not device_ids or device_id in device_ids
        }
        if keys.master is not None:
            (public,) = keys.master["keys"].values()
            answer["master_keys"][user_id] = key_signatures.merged(
                self._db.read, keys.master, user_id, public, viewer
            )
        if keys.self_signing is not None:
            answer["self_signing_keys"][user_id] = keys.self_signing

    def query_local(self, body: JsonObject) -> JsonObject:
        """POST /_matrix/federation/v1/user/keys/query: what other servers may see of our users."""
        answer: JsonObject = {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}
        for user_id, device_ids in checked_query(required_object(body, "device_keys")).items():
            if domain_of(user_id) == self._server_name:
                self._add_local(answer, user_id, device_ids, None)
        return answer

    def _add_local(self, answer: JsonObject, user_id: str, device_ids: list[str], viewer: str | None) -> None:
        if not user_store.is_active(self._db.read, user_id):
            return
        answer["device_keys"][user_id] = device_keys.visible(
            self._db.read, user_id, device_ids or None, viewer
        )
        for usage, key in cross_signing.visible(self._db.read, user_id, viewer).items():
            answer[_KEY_MAPS[usage]][user_id] = key

    def devices_of(self, user_id: str) -> JsonObject:
        """GET /_matrix/federation/v1/user/devices/{userId}: empty for unknown users."""
        found: list[JsonObject] = []
        for device_id, keys in device_keys.visible(self._db.read, user_id, None, None).items():
            device = {"device_id": device_id, "keys": {k: v for k, v in keys.items() if k != "unsigned"}}
            name = keys.get("unsigned", {}).get("device_display_name")
            found.append(device if name is None else {**device, "device_display_name": name})
        answer: JsonObject = {
            "user_id": user_id,
            "stream_id": device_lists.stream_id(self._db.read, user_id),
            "devices": found,
        }
        for usage, key in cross_signing.visible(self._db.read, user_id, None).items():
            answer[f"{usage}_key"] = key
        return answer

    async def changes(self, requester: Requester, since: int) -> JsonObject:
        """GET /keys/changes, from a position in the change log on. It may name more users than it must."""

        def read(db: Reader) -> JsonObject:
            met, left = device_lists.met_and_left(db, requester.user_id, since)
            changed = device_lists.changed_among_contacts(db, requester.user_id, since, MAX_INT)
            return {"changed": sorted(met.union(changed) - left), "left": sorted(left)}

        return await self._db.scan(read)

    async def claim(self, body: JsonObject) -> JsonObject:
        """POST /keys/claim."""
        wanted = checked_claim(required_object(body, "one_time_keys"))
        timeout = timeout_of(body)
        remote = {user: of for user, of in wanted.items() if domain_of(user) != self._server_name}
        answer = await self.claim_local(body)

        async def ask(federation: ports.Federation, host: str, of_host: dict[str, dict[str, str]]) -> None:
            found = checked_claim_answer(await federation.claim_keys(host, of_host), of_host)
            answer["one_time_keys"].update(found)

        answer["failures"] = await self._ask_all(remote, timeout, ask)
        return answer

    async def claim_local(self, body: JsonObject) -> JsonObject:
        """POST /_matrix/federation/v1/user/keys/claim, and the part of /keys/claim that is ours."""
        wanted = checked_claim(required_object(body, "one_time_keys"))
        return await self._hand_out(
            {user: {device: [algorithm] for device, algorithm in of.items()} for user, of in wanted.items()}
        )

    async def claim_many_local(self, body: JsonObject) -> JsonObject:
        """POST /_matrix/federation/unstable/user/keys/claim (MSC3983): several keys of a device at once."""
        return await self._hand_out(checked_claim_of_many(required_object(body, "one_time_keys")))

    async def _hand_out(self, wanted: Mapping[str, Mapping[str, list[str]]]) -> JsonObject:
        """The keys of our users: for each device one for each time that an algorithm is named."""
        local = {user: of for user, of in wanted.items() if domain_of(user) == self._server_name}
        now = self._runtime.clock.now_ms()

        def write(tx: Tx) -> JsonObject:
            claimed: JsonObject = {}
            for user_id, devices_ in local.items():
                for device_id, algorithms in devices_.items():
                    for algorithm in algorithms:
                        found = one_time_keys.claim(tx, user_id, device_id, algorithm, now=now)
                        if found is not None:
                            claimed.setdefault(user_id, {}).setdefault(device_id, {})[found[0]] = found[1]
            return claimed

        return {"one_time_keys": await self._db.write(write) if local else {}}

    async def _ask_all[T](
        self,
        wanted: dict[str, T],
        seconds: float,
        ask: Callable[[ports.Federation, str, dict[str, T]], Awaitable[None]],
    ) -> JsonObject:
        """Ask each user's server, many at once; the `failures` of the answer."""
        by_host: dict[str, dict[str, T]] = {}
        for user_id, value in wanted.items():
            by_host.setdefault(domain_of(user_id), {})[user_id] = value
        federation = self._federation
        if federation is None:
            return {host: {"status": 503, "message": "other servers can't be asked"} for host in by_host}
        failures: JsonObject = {}
        waiting = set(by_host)
        limiter = trio.CapacityLimiter(MAX_HOSTS_AT_ONCE)

        async def ask_one(host: str) -> None:
            async with limiter:
                try:
                    await ask(federation, host, by_host[host])
                except FederationError as error:
                    failures[host] = {"status": 503, "message": error.message[:500]}
            waiting.discard(host)

        # One deadline for all, so that a queue of slow servers does not add up.
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for host in by_host:
                    nursery.start_soon(ask_one, host)
        for host in waiting:
            failures[host] = {"status": 504, "message": "no answer in time"}
        return failures


def checked_query(device_keys: JsonObject) -> dict[str, list[str]]:
    """User id → device ids (none: all)."""
    check_users(device_keys)
    for device_ids in device_keys.values():
        if not isinstance(device_ids, list) or not all(isinstance(each, str) for each in device_ids):
            raise bad_json("device_keys must map users to lists of device ids.")
    return device_keys


def checked_claim(one_time_keys: JsonObject) -> dict[str, dict[str, str]]:
    """User id → device id → algorithm."""
    check_users(one_time_keys)
    for algorithms in one_time_keys.values():
        if not isinstance(algorithms, dict) or not all(
            isinstance(algorithm, str) and fits(algorithm) for algorithm in algorithms.values()
        ):
            raise bad_json("one_time_keys must map users to devices to algorithms.")
    return one_time_keys


def checked_claim_of_many(one_time_keys: JsonObject) -> dict[str, dict[str, list[str]]]:
    """User id → device id → algorithms, each as often as keys are wanted."""
    check_users(one_time_keys)
    for devices_ in one_time_keys.values():
        if not isinstance(devices_, dict) or not all(
            isinstance(algorithms, list)
            and len(algorithms) <= MAX_CLAIMED
            and all(isinstance(algorithm, str) and fits(algorithm) for algorithm in algorithms)
            for algorithms in devices_.values()
        ):
            raise bad_json(
                f"one_time_keys must map users to devices to lists of at most {MAX_CLAIMED} algorithms."
            )
    return one_time_keys


def check_users(users: JsonObject) -> None:
    if len(users) > MAX_USERS:
        raise invalid_param(f"At most {MAX_USERS} users can be asked for at once.")
    if not all(is_user_id(user_id) for user_id in users):
        raise invalid_param("One of the users is not a user id.")


def timeout_of(body: JsonObject) -> float:
    """Seconds to wait for other servers."""
    timeout = number(body, "timeout", DEFAULT_TIMEOUT_MS)
    return min(max(timeout, 0), MAX_TIMEOUT_MS) / 1000
