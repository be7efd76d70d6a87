# SPDX-License-Identifier: Apache-2.0
"""The server's own signing key: one line in `signing.key` in the data folder, made once.

The line is what Synapse writes, `ed25519 <version> <seed>`, so a key can move between the two. Whoever has
this file can speak in the server's name; it is readable by its owner only.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from minihs.config import ConfigError
from minihs.matrix import unpadded
from minihs.matrix.signatures import SigningKey
from minihs.runtime import Randomness

KNOWN_SEEDS = {unpadded.decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")}
"""Seeds that are printed somewhere: the specification's appendix on signing JSON. Servers have been set up
with such keys."""

VERSION_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def load_or_create(path: Path, random: Randomness) -> SigningKey:
    try:
        return load(path)
    except FileNotFoundError:
        create(path, random)
        return load(path)


def load(path: Path) -> SigningKey:
    """The key in a file. ConfigError if there is none in it, or one that anybody can have."""
    try:
        key = SigningKey.from_text(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{path} does not hold a signing key (one line: ed25519 VERSION SEED). Restore it from a backup; "
            "with a new key, other servers stop believing this one's older events."
        ) from error
    if is_known_to_others(key):
        raise ConfigError(
            f"The signing key in {path} is known to others, who could speak in this server's name. Remove "
            "the file: a new key is made at the next start."
        )
    return key


def is_known_to_others(key: SigningKey) -> bool:
    """A key out of a textbook, or one whose seed is not chance: a repeated word, a run of bytes."""
    seed = unpadded.decode(key.to_text().split()[2])
    repeated = any(seed == seed[:length] * (len(seed) // length) for length in (1, 2, 4, 8, 16))
    counted = len({(second - first) % 256 for first, second in pairwise(seed)}) == 1
    return seed in KNOWN_SEEDS or repeated or counted


def create(path: Path, random: Randomness) -> None:
    """Write a new key. An existing file is never overwritten (FileExistsError)."""
    version = "a_" + "".join(VERSION_LETTERS[byte % len(VERSION_LETTERS)] for byte in random.token_bytes(4))
    key = SigningKey.generate(random.token_bytes(32), version)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(key.to_text().strip() + "\n")
        file.flush()
        os.fsync(file.fileno())
