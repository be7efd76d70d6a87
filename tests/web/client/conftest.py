# SPDX-License-Identifier: Apache-2.0
"""A server for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.media.kit import MediaHouse, open_media

from .kit import TestServer, open_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    async with open_server(tmp_path, registration={"mode": "open"}) as server:
        yield server


@pytest.fixture
async def media(tmp_path: Path) -> AsyncIterator[MediaHouse]:
    async with open_media(tmp_path, max_upload_mib=1, max_remote_mib=1) as house:
        yield house
