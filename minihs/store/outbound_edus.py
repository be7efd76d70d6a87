# SPDX-License-Identifier: Apache-2.0
"""EDUs that must not get lost on their way to other servers: to-device, device lists, signing keys."""

from __future__ import annotations

import json
from typing import Any

from minihs.store import ids
from minihs.store.database import Tx


def queue_edu(tx: Tx, host: str, edu_type: str, content: dict[str, Any]) -> int:
    """Have an EDU sent to one server, after the ones queued before it. Returns its `seq`."""
    edu = json.dumps({"edu_type": edu_type, "content": content}, ensure_ascii=False, separators=(",", ":"))
    rows = tx.execute(
        "INSERT INTO outbound_edus (host_nid, edu) VALUES (?, ?) RETURNING seq",
        (ids.intern_host(tx, host), edu),
    ).fetchall()
    tx.wake(f"host:{host}")
    return int(rows[0][0])
