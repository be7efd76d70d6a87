# SPDX-License-Identifier: Apache-2.0
"""`minihs user add`, `invite` and `password`: accounts, whether or not the server is running.

One process at a time has the database open. So a running server is asked, through the socket in its data
folder, and does it itself; without one, the database is opened here.
"""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import trio

from minihs.cli import admin_socket, settings
from minihs.cli.asking import when
from minihs.config import Config, ConfigError
from minihs.matrix.errors import MatrixError
from minihs.matrix.ids import localpart_of
from minihs.runtime import Runtime
from minihs.store.database import Database
from minihs.users.accounts import MAX_INVITATION_DAYS
from minihs.users.service import Users
from minihs.web.routes.client.fallback import INVITATION_PAGE


def add(path: Path | None, name: str, *, is_admin: bool, password_stdin: bool) -> int:
    config = settings.require(path)
    localpart = local_name(name, config)
    password = read_password(from_stdin=password_stdin)
    try:
        user_id = ask_server(config, localpart, password, is_admin=is_admin)
        if user_id is None:
            user_id = trio.run(add_directly, config, localpart, password, is_admin)
    except MatrixError as refusal:
        print(f"minihs: {refusal.message}", file=sys.stderr)
        return 1
    print(f"Made the account {user_id}{', an administrator' if is_admin else ''}.")
    return 0


def password(path: Path | None, name: str, *, log_out: bool, password_stdin: bool) -> int:
    """Set a forgotten password anew."""
    config = settings.require(path)
    user_id = f"@{local_name(name, config)}:{config.server_name}"
    new = read_password(from_stdin=password_stdin)
    body = {"user_id": user_id, "password": new, "log_out": log_out}
    try:
        if admin_socket.ask(config, "/_minihs/admin/users/password", body) is None:
            trio.run(set_password_directly, config, user_id, new, log_out)
    except MatrixError as refusal:
        print(f"minihs: {refusal.message}", file=sys.stderr)
        return 1
    print(f"{user_id} has a new password{', and all devices are logged out' if log_out else ''}.")
    return 0


async def set_password_directly(config: Config, user_id: str, password: str, log_out: bool) -> None:
    runtime = Runtime()
    async with Database.open(config.database_path, runtime) as db:
        await Users(db, runtime, config).reset_password(user_id, password, log_out=log_out)


def invite(path: Path | None, days: int) -> int:
    """Print a link with which one person may make one account."""
    config = settings.require(path)
    if not 1 <= days <= MAX_INVITATION_DAYS:
        raise ConfigError(f"--days must be from 1 to {MAX_INVITATION_DAYS}.")
    made = admin_socket.ask(config, "/_minihs/admin/invitations", {"days": days})
    if made is None:
        made = trio.run(invite_directly, config, days)
    base = config.public_base_url.rstrip("/") or f"https://{config.server_name}"
    # Behind a #, the token is not sent with the request for the page, so no log has it.
    print(f"{base}{INVITATION_PAGE}#{made['token']}")
    print(f"This link makes one account. It is good until {when(made['expires_ts'])}.", file=sys.stderr)
    return 0


async def invite_directly(config: Config, days: int) -> dict[str, Any]:
    runtime = Runtime()
    config.data_path.mkdir(parents=True, exist_ok=True)
    async with Database.open(config.database_path, runtime) as db:
        return await Users(db, runtime, config).accounts.invite(days)


def local_name(name: str, config: Config) -> str:
    """The local part; a whole id is fine if it is of this server."""
    if not name.startswith("@"):
        return name
    if not name.endswith(f":{config.server_name}"):
        raise ConfigError(f"{name} is not of this server, which is {config.server_name}.")
    return localpart_of(name)


def read_password(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        try:
            password = getpass.getpass("Password: ")
            again = getpass.getpass("Once more: ")
        except EOFError as end:
            raise ConfigError("no password was typed; without a terminal, use --password-stdin.") from end
        if again != password:
            raise ConfigError("the two passwords differ; nothing was done.")
    if not password:
        raise ConfigError("the password is empty; nothing was done.")
    return password


def ask_server(config: Config, localpart: str, password: str, *, is_admin: bool) -> str | None:
    """The new user id; None if no server runs on this data folder."""
    body = {"name": localpart, "password": password, "admin": is_admin}
    answer = admin_socket.ask(config, "/_minihs/admin/users", body)
    return None if answer is None else str(answer["user_id"])


async def add_directly(config: Config, localpart: str, password: str, is_admin: bool) -> str:
    runtime = Runtime()
    config.data_path.mkdir(parents=True, exist_ok=True)
    async with Database.open(config.database_path, runtime) as db:
        return await Users(db, runtime, config).create_account(localpart, password, is_admin)
