# SPDX-License-Identifier: Apache-2.0
"""Identity keys of local users' devices (client-server-api, "Device keys")."""

from __future__ import annotations

import json
from collections.abc import Sequence

from minihs.matrix.canonical import JsonObject
from minihs.store import key_signatures
from minihs.store.database import Reader, Tx


def get(db: Reader, user_id: str, device_id: str) -> JsonObject | None:
    """As uploaded, without `unsigned`."""
    row = db.execute(
        "SELECT json FROM device_keys WHERE user_id = ? AND device_id = ?", (user_id, device_id)
    ).fetchone()
    if row is None:
        return None
    keys: JsonObject = json.loads(row[0])
    return keys


def put(tx: Tx, user_id: str, device_id: str, keys: JsonObject) -> bool:
    """False: the device has these keys already. The caller announces a change (`device_lists`)."""
    before = get(tx, user_id, device_id)
    if before == keys:
        return False
    if before is not None and before.get("keys") != keys.get("keys"):
        key_signatures.delete_of_key(tx, user_id, device_id)
    tx.execute(
        "INSERT INTO device_keys VALUES (?, ?, ?) "
        "ON CONFLICT (user_id, device_id) DO UPDATE SET json = excluded.json",
        (user_id, device_id, json.dumps(keys, ensure_ascii=False, separators=(",", ":"))),
    )
    return True


def visible(
    db: Reader, user_id: str, device_ids: Sequence[str] | None, viewer: str | None
) -> dict[str, JsonObject]:
    """The devices with keys, as `viewer` may see them: later signatures and the device's name included.

    `device_ids` None: all of them. `viewer` None: another server.
    """
    rows = db.execute(
        "SELECT k.device_id, k.json, d.display_name FROM device_keys k JOIN devices d USING (user_id, "
        "device_id) "
        "WHERE k.user_id = ?",
        (user_id,),
    ).fetchall()
    result: dict[str, JsonObject] = {}
    for device_id, text, display_name in rows:
        if device_ids is not None and device_id not in device_ids:
            continue
        keys = key_signatures.merged(db, json.loads(text), user_id, device_id, viewer)
        if display_name is not None:
            keys = {**keys, "unsigned": {"device_display_name": display_name}}
        result[device_id] = keys
    return result
