# SPDX-License-Identifier: Apache-2.0
"""What end-to-end encryption needs from other servers, as it sees it. `minihs.federation` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from minihs.matrix.canonical import JsonObject


class Federation(Protocol):
    """Raises minihs.matrix.federation_errors.FederationError. Of the answers nothing is checked yet."""

    async def query_keys(self, host: str, device_keys: Mapping[str, Sequence[str]]) -> JsonObject: ...

    async def claim_keys(self, host: str, one_time_keys: Mapping[str, Mapping[str, str]]) -> JsonObject: ...

    async def user_devices(self, host: str, user_id: str) -> JsonObject: ...
