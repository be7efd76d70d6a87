# SPDX-License-Identifier: Apache-2.0
"""Checking the signature of a request (spec: server-server-api, "Request Authentication")."""

from __future__ import annotations

from typing import Any

from minihs.federation import x_matrix
from minihs.federation.keyring import Keyring
from minihs.matrix import canonical, unpadded
from minihs.matrix.errors import unauthorized
from minihs.matrix.signatures import SignatureError, verify_bytes


class RequestAuth:
    def __init__(self, our_name: str, keyring: Keyring) -> None:
        self._our_name = our_name
        self._keyring = keyring

    async def authenticate(self, method: str, raw_uri: str, headers: Any, content: Any) -> str:
        try:
            header = x_matrix.parse(headers.get("Authorization", ""))
        except x_matrix.BadHeader as error:
            raise unauthorized(str(error)) from error
        if header.destination not in (None, self._our_name):
            raise unauthorized("The request is signed for another server.")
        message = x_matrix.signed_bytes(
            method=method,
            uri=raw_uri,
            origin=header.origin,
            destination=self._our_name,
            content=None if content is None else canonical.encode(content),
        )
        try:
            key = await self._keyring.key(header.origin, header.key_id)
            verify_bytes(message, unpadded.decode(header.signature), key)
        except SignatureError as error:
            raise unauthorized(f"The signature does not hold: {error}") from error
        return header.origin
