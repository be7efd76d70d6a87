# SPDX-License-Identifier: Apache-2.0
"""What media need from the outside, as they see it. `minihs.federation` implements these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Incoming(Protocol):
    """An answer that has begun: its headers (names in lower case), and its body as it comes."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def url(self) -> str:
        """Where it came from in the end, after redirects."""
        ...

    @property
    def body(self) -> AsyncIterator[bytes]:
        """To be iterated inside of the `async with`, once."""
        ...


class Peers(Protocol):
    """Media of other servers. Each raises `minihs.matrix.federation_errors.FederationError`, from within the
    `async with` as well."""

    def download(
        self, host: str, media_id: str, *, timeout_ms: int, within: float
    ) -> AbstractAsyncContextManager[Incoming]:
        """By the signed endpoint: multipart/mixed."""
        ...

    def download_legacy(
        self, host: str, media_id: str, *, timeout_ms: int, within: float
    ) -> AbstractAsyncContextManager[Incoming]:
        """By the open endpoint of servers before 1.11: the bytes themselves."""
        ...


class Web(Protocol):
    """Pages and files on the web; private addresses are out of reach, behind redirects too."""

    def get(
        self, url: str, *, accept: str, within: float, max_redirects: int
    ) -> AbstractAsyncContextManager[Incoming]:
        """A success (200). Raises FederationError like the others."""
        ...
