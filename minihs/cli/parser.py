# SPDX-License-Identifier: Apache-2.0
"""The verbs of the one binary. Each verb's work is in a module of its own, imported when it is used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from minihs import __version__
from minihs.config import ConfigError
from minihs.store.errors import StoreError

CONFIG_HELP = "the configuration file (default: ./minihs.toml)"


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the process's exit status."""
    options = make_parser().parse_args(arguments)
    status = 0
    try:
        status = options.verb(options)
    except* ConfigError as errors:
        status = complain(errors, 2)
    except* StoreError as errors:
        status = complain(errors, 1)
    return status


def complain(errors: BaseException, status: int) -> int:
    """What the operator can do something about needs no traceback."""
    if isinstance(errors, BaseExceptionGroup):
        for each in errors.exceptions:
            complain(each, status)
    else:
        print(f"minihs: {errors}", file=sys.stderr)
    return status


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minihs", description="A Matrix homeserver that one person can own.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"minihs {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    serve = verbs.add_parser("serve", help="run the server in the foreground", allow_abbrev=False)
    serve.add_argument("--config", type=Path, help=CONFIG_HELP)
    serve.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default="info", help="(default: info)"
    )
    serve.set_defaults(verb=do_serve)

    init = verbs.add_parser(
        "init", help="write a configuration file and the server's signing key", allow_abbrev=False
    )
    init.add_argument("server_name", help="the name in every id, for ever: example.org")
    init.add_argument("--config", type=Path, help="the file to write (default: ./minihs.toml)")
    init.add_argument("--data-dir", default="minihs-data", help="(default: minihs-data)")
    init.set_defaults(verb=do_init)

    add_user_verbs(verbs)

    push = verbs.add_parser("push", help="notifications", allow_abbrev=False).add_subparsers(
        metavar="VERB", required=True
    )
    test = push.add_parser("test", help="try the push gateways of a user's apps", allow_abbrev=False)
    test.add_argument("name", help="the local part (alice) or the whole id (@alice:example.org)")
    finish(test, do_push_test)
    add_federation_verbs(verbs)

    limits = verbs.add_parser("limits", help="every bound of this server", allow_abbrev=False)
    limits.add_argument("--json", action="store_true", help="for tools")
    limits.set_defaults(verb=do_limits)
    return parser


def finish(verb: argparse.ArgumentParser, do: Callable[[argparse.Namespace], int]) -> None:
    """What verbs end with that need a server's settings."""
    verb.add_argument("--config", type=Path, help=CONFIG_HELP)
    verb.set_defaults(verb=do)


def add_user_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    user = verbs.add_parser("user", help="manage accounts", allow_abbrev=False).add_subparsers(
        metavar="VERB", required=True
    )
    add = user.add_parser("add", help="make an account", allow_abbrev=False)
    add.add_argument("name", help="the local part (alice) or the whole id (@alice:example.org)")
    add.add_argument("--admin", action="store_true", help="the account may administer the server")
    add.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input, do not ask"
    )
    finish(add, do_user_add)
    invite = user.add_parser(
        "invite", help="print a link with which somebody makes one account", allow_abbrev=False
    )
    invite.add_argument("--days", type=int, default=7, help="how long it is good (default: 7)")
    finish(invite, do_user_invite)
    password = user.add_parser("password", help="set a forgotten password anew", allow_abbrev=False)
    password.add_argument("name", help="the local part (alice) or the whole id (@alice:example.org)")
    password.add_argument("--log-out", action="store_true", help="all devices have to log in anew")
    password.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input, do not ask"
    )
    finish(password, do_user_password)


def add_federation_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What has to do with other servers: explain, peers, keys."""

    explain = verbs.add_parser(
        "explain", help="why an event, a room or a part of its state is as it is", allow_abbrev=False
    ).add_subparsers(metavar="WHAT", required=True)
    event = explain.add_parser("event", help="was it accepted, and by which rule not?", allow_abbrev=False)
    event.add_argument("event_id")
    room = explain.add_parser("room", help="members, servers, extremities, what waits", allow_abbrev=False)
    room.add_argument("room_id")
    state = explain.add_parser("state", help="which event won a conflict, and why", allow_abbrev=False)
    state.add_argument("room_id")
    state.add_argument("type")
    state.add_argument("state_key", nargs="?", default="", help="(default: the empty one)")
    for verb, do in ((event, do_explain_event), (room, do_explain_room), (state, do_explain_state)):
        verb.add_argument("--json", action="store_true", help="for tools")
        finish(verb, do)

    peers = verbs.add_parser(
        "peers", help="which other servers answer, and what waits for them", allow_abbrev=False
    )
    peers.add_argument("--json", action="store_true", help="for tools")
    finish(peers, do_peers)
    retry = peers.add_subparsers(metavar="VERB", required=False).add_parser(
        "retry", help="try a server now that did not answer", allow_abbrev=False
    )
    retry.add_argument("host")
    finish(retry, do_peers_retry)

    keys = verbs.add_parser("keys", help="the server's signing keys", allow_abbrev=False).add_subparsers(
        metavar="VERB", required=True
    )
    finish(
        keys.add_parser("rotate", help="make a new key; the old one stays published", allow_abbrev=False),
        do_keys_rotate,
    )


def do_serve(options: argparse.Namespace) -> int:
    from minihs.cli import serve

    return serve.serve(options.config, options.log_level)


def do_init(options: argparse.Namespace) -> int:
    from minihs.cli import init

    return init.init(options.config or Path("minihs.toml"), options.server_name, options.data_dir)


def do_user_add(options: argparse.Namespace) -> int:
    from minihs.cli import user

    return user.add(
        options.config, options.name, is_admin=options.admin, password_stdin=options.password_stdin
    )


def do_user_invite(options: argparse.Namespace) -> int:
    from minihs.cli import user

    return user.invite(options.config, options.days)


def do_user_password(options: argparse.Namespace) -> int:
    from minihs.cli import user

    return user.password(
        options.config, options.name, log_out=options.log_out, password_stdin=options.password_stdin
    )


def do_push_test(options: argparse.Namespace) -> int:
    from minihs.cli import push

    return push.test(options.config, options.name)


def do_explain_event(options: argparse.Namespace) -> int:
    from minihs.cli import explain

    return explain.event(options.config, options.event_id, as_json=options.json)


def do_explain_room(options: argparse.Namespace) -> int:
    from minihs.cli import explain

    return explain.room(options.config, options.room_id, as_json=options.json)


def do_explain_state(options: argparse.Namespace) -> int:
    from minihs.cli import explain

    return explain.state(
        options.config, options.room_id, options.type, options.state_key, as_json=options.json
    )


def do_peers(options: argparse.Namespace) -> int:
    from minihs.cli import peers

    return peers.listing(options.config, as_json=options.json)


def do_peers_retry(options: argparse.Namespace) -> int:
    from minihs.cli import peers

    return peers.retry(options.config, options.host)


def do_limits(options: argparse.Namespace) -> int:
    from minihs.cli import limits

    return limits.show(as_json=options.json)


def do_keys_rotate(options: argparse.Namespace) -> int:
    from minihs.cli import keys

    return keys.rotate(options.config)
