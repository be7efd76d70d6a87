# SPDX-License-Identifier: Apache-2.0
"""Whom a client request comes from: made from its access token by `users`, read by routes, sync and e2ee.

It stands beside the layers, as the runtime does, because they all hand it on.
"""

from __future__ import annotations

from typing import NamedTuple


class Requester(NamedTuple):
    """An authenticated user and the device whose token it is."""

    user_id: str
    device_id: str
    token_id: int
    is_guest: bool = False
    is_admin: bool = False
    is_suspended: bool = False
    """May read and leave, but not send, join or change the profile ("Account suspension")."""
