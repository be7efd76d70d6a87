# SPDX-License-Identifier: Apache-2.0
"""`minihs keys rotate`: a new signing key; the old one stays published, for the events signed with it."""

from __future__ import annotations

import os
from pathlib import Path

from minihs.cli import admin_socket, settings
from minihs.config import Config, ConfigError
from minihs.federation.own_keys import OLD_KEYS_FILE, read_old_keys
from minihs.matrix import unpadded
from minihs.runtime import Runtime
from minihs.signing_key import create, load


def rotate(path: Path | None) -> int:
    config = settings.require(path)
    if admin_socket.is_running(config):
        raise ConfigError(
            "the server is running, and would go on signing with the old key after its end. Stop it, rotate, "
            "and start it again."
        )
    old, new = replace_key(config, Runtime())
    print(
        f"The signing key is now {new}. {old} stays published as an old key, so that events signed with it "
        "are still believed. Keep a backup of the data folder: both are in it."
    )
    return 0


def replace_key(config: Config, runtime: Runtime) -> tuple[str, str]:
    """(old key id, new key id). Interrupted at any point, it leaves a server that works; run it again."""
    key_path, old_path = config.signing_key_path, config.data_path / OLD_KEYS_FILE
    try:
        old = load(key_path)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no {key_path}: this server has never run.") from error
    new_path = key_path.with_name(key_path.name + ".new")
    new_path.unlink(missing_ok=True)
    create(new_path, runtime.random)
    new = load(new_path)
    retired = read_old_keys(old_path)
    lines = [
        f"{key_id} {unpadded.encode(each.public_key)} {each.expired_ts}"
        for key_id, each in retired.items()
        if key_id not in (old.key_id, new.key_id)
    ]
    lines.append(f"{old.key_id} {old.verify_key_base64} {runtime.clock.now_ms()}")
    # First the old key is published as such: while it is still in use, the server passes over that line.
    write_whole(old_path, "\n".join(lines) + "\n")
    os.replace(new_path, key_path)
    sync_folder(key_path.parent)
    return old.key_id, new.key_id


def write_whole(path: Path, text: str) -> None:
    """All or nothing, and on disk when it returns."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
