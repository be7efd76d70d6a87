# SPDX-License-Identifier: Apache-2.0
"""Answers of other servers about keys, reduced to what was asked for and is well formed.

What is wrong is left out, as if the server had not sent it: one bad device must not hide the good ones.
"""

from __future__ import annotations

from minihs.e2ee.shapes import (
    MAX_KEYS_BYTES,
    MAX_ONE_TIME_KEY_BYTES,
    check_size,
    checked_cross_signing_key,
    checked_device_keys,
    checked_one_time_key,
)
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json
from minihs.matrix.ids import fits
from minihs.store.remote_devices import UserKeys

MAX_DEVICES = 1000
"""Of one remote user; more are left out."""


def checked_query_answer(answer: JsonObject, asked: dict[str, list[str]]) -> dict[str, JsonObject]:
    """`device_keys`, `master_keys` and `self_signing_keys`, each by user."""
    result: dict[str, JsonObject] = {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}
    for user_id, device_ids in asked.items():
        found = _object(_object(answer.get("device_keys")).get(user_id))
        devices = {}
        for device_id, keys in list(found.items())[:MAX_DEVICES]:
            if not device_ids or device_id in device_ids:
                checked = _device(keys, user_id, device_id)
                if checked is not None:
                    devices[device_id] = checked
        if user_id in _object(answer.get("device_keys")):
            result["device_keys"][user_id] = devices
        for usage in ("master", "self_signing"):
            key = _cross_signing(_object(answer.get(f"{usage}_keys")).get(user_id), user_id, usage)
            if key is not None:
                result[f"{usage}_keys"][user_id] = key
    return result


def checked_claim_answer(answer: JsonObject, asked: dict[str, dict[str, str]]) -> JsonObject:
    """User id → device id → "algorithm:id" → key."""
    result: JsonObject = {}
    for user_id, algorithms in asked.items():
        of_user = _object(_object(answer.get("one_time_keys")).get(user_id))
        for device_id, algorithm in algorithms.items():
            for name, key in list(_object(of_user.get(device_id)).items())[:1]:
                try:
                    checked = checked_one_time_key(name, key)
                except MatrixError:
                    continue
                if checked.algorithm == algorithm and len(checked.json) <= MAX_ONE_TIME_KEY_BYTES:
                    result.setdefault(user_id, {})[device_id] = {name: key}
    return result


def checked_devices_answer(answer: JsonObject, user_id: str) -> tuple[UserKeys, int]:
    """GET /user/devices: the user's keys, and the stream_id up to which they hold.

    Raises M_BAD_JSON for what is no such answer at all.
    """
    stream_id, listed = answer.get("stream_id"), answer.get("devices")
    if answer.get("user_id") != user_id or type(stream_id) is not int or not isinstance(listed, list):
        raise bad_json("This is no list of the user's devices.")
    found = UserKeys()
    for item in listed[:MAX_DEVICES]:
        device_id = _object(item).get("device_id")
        if isinstance(device_id, str) and fits(device_id):
            device = checked_device(item.get("keys"), user_id, device_id, item.get("device_display_name"))
            if device is not None:
                found.devices[device_id] = device
    found.master = _cross_signing(answer.get("master_key"), user_id, "master")
    found.self_signing = _cross_signing(answer.get("self_signing_key"), user_id, "self_signing")
    return found, stream_id


def user_keys(found: dict[str, JsonObject], user_id: str) -> UserKeys | None:
    """One user's part of a checked answer; None if the server does not know the user."""
    if user_id not in found["device_keys"]:
        return None
    return UserKeys(
        found["device_keys"][user_id],
        found["master_keys"].get(user_id),
        found["self_signing_keys"].get(user_id),
    )


def _cross_signing(key: object, user_id: str, usage: str) -> JsonObject | None:
    try:
        return checked_cross_signing_key(key, user_id, usage)[1]
    except MatrixError:
        return None


def _device(keys: object, user_id: str, device_id: str) -> JsonObject | None:
    name = _object(_object(keys).get("unsigned")).get("device_display_name")
    return checked_device(keys, user_id, device_id, name)


def checked_device(keys: object, user_id: str, device_id: str, name: object) -> JsonObject | None:
    """A device's keys with its name in `unsigned`; None if they are malformed."""
    if not isinstance(keys, dict):
        return None
    try:
        checked = checked_device_keys(keys, user_id, device_id)
        check_size(keys, 2 * MAX_KEYS_BYTES, "device_keys")
    except MatrixError:
        return None
    if isinstance(name, str) and fits(name):
        return {**checked, "unsigned": {"device_display_name": name}}
    return checked


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}
