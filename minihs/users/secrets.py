# SPDX-License-Identifier: Apache-2.0
"""Secrets that we hand out: made of 256 random bits, kept only as their SHA-256.

Such a secret can't be guessed, so unlike a password it needs no slow hash.
"""

from __future__ import annotations

import hashlib

from minihs.runtime import Randomness

SECRET_BYTES = 32

_DEVICE_ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOCALPART_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_secret(random: Randomness, prefix: str) -> str:
    """A fresh secret. The prefix lets tools that look for leaked secrets recognise it."""
    return f"{prefix}_{random.token_urlsafe(SECRET_BYTES)}"


def digest(secret: str) -> bytes:
    """What is kept of a secret. Takes any text, also what was never one of ours."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_device_id(random: Randomness) -> str:
    """Ten capital letters, the way people are used to see device ids."""
    return "".join(_DEVICE_ID_ALPHABET[byte % 26] for byte in random.token_bytes(10))


def new_localpart(random: Randomness) -> str:
    """For who registers without a name."""
    return "u" + "".join(_LOCALPART_ALPHABET[byte % 32] for byte in random.token_bytes(12))
