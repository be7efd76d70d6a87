# SPDX-License-Identifier: Apache-2.0
"""The configuration: one frozen class with every key, its type, its default and what it means.

The TOML file, the `MINIHS_...` environment variables, `minihs.toml.example` and docs/configuration.md all
follow from the classes here, and a test holds them together. An unknown key is an error, so that a typing
mistake can't silently leave a default in force.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from minihs.matrix.ids import parse_server_name
from minihs.matrix.room_versions import ROOM_VERSIONS

type Api = Literal["federation", "client"]
ALL_APIS: tuple[Api, ...] = ("federation", "client")


class ConfigError(Exception):
    """The configuration can't be used. The text names the key and says what to do."""


class Listen(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A socket to serve on; the table may be repeated."""

    address: Annotated[
        str, Meta(description='Where to listen: "0.0.0.0:8448", "[::]:8448" or "unix:/run/minihs.sock".')
    ]
    tls_certificate: Annotated[
        str,
        Meta(
            description="File with the certificate chain (PEM). Give both or neither; without, this socket "
            "speaks plain HTTP, for a proxy in front. SIGHUP reads the files again."
        ),
    ] = ""
    tls_key: Annotated[str, Meta(description="File with the certificate's private key (PEM).")] = ""
    apis: Annotated[
        list[Api], Meta(description='What is answered here: "federation", "client" or both.', min_length=1)
    ] = msgspec.field(default_factory=lambda: list(ALL_APIS))
    trusted_proxies: Annotated[
        list[str],
        Meta(
            description="Addresses or networks of proxies in front, whose X-Forwarded-For is believed. "
            "They are exempt from the limit on connections per address."
        ),
    ] = []

    @property
    def unix_path(self) -> str | None:
        """The path of a unix socket; None for TCP."""
        return self.address.removeprefix("unix:") if self.address.startswith("unix:") else None

    @property
    def tcp(self) -> tuple[str, int]:
        """Host (without brackets) and port."""
        host, _, port = self.address.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


class Registration(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may make an account."""

    mode: Annotated[
        Literal["closed", "token", "open"],
        Meta(
            description='"closed": only `minihs user add` makes accounts, and who has a link of `minihs user '
            'invite`. "token": the same, and apps offer it. "open": anybody. Think twice: open servers '
            "attract spam."
        ),
    ] = "closed"
    shared_secret: Annotated[
        str,
        Meta(
            description="Not empty: whoever knows it may make accounts, administrators too, through "
            "POST /_synapse/admin/v1/register, as tools made for Synapse do. Keep it secret."
        ),
    ] = ""


class Federation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How other servers are reached."""

    verify_tls: Annotated[
        bool, Meta(description="Check other servers' certificates. Switch off only in a closed test network.")
    ] = True
    ca_file: Annotated[
        str, Meta(description="File with more certificate authorities to believe (PEM), beside the system's.")
    ] = ""
    allow_networks: Annotated[
        list[str],
        Meta(
            description="Private networks that may be dialled all the same, such as "
            '["127.0.0.0/8", "192.168.1.0/24"]. Otherwise other servers could make us talk to '
            "machines behind the firewall."
        ),
    ] = []
    partial_joins: Annotated[
        bool,
        Meta(
            description="Be in a room of other servers as soon as all of its state but the members is known, "
            "and fetch those in the background. If off, joining waits for all of them."
        ),
    ] = True
    notaries: Annotated[
        list[str],
        Meta(
            description="Servers asked for the keys of other servers that don't answer themselves. They "
            "could keep back keys, or vouch for those of a server that is gone; choose ones that you trust. "
            "May be empty."
        ),
    ] = msgspec.field(default_factory=lambda: ["matrix.org"])


class RateLimits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits on how often a client may ask."""

    enabled: Annotated[
        bool, Meta(description="Limit logins, registrations and messages. Off only for tests and benchmarks.")
    ] = True


class Media(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Uploaded files and those of other servers."""

    max_upload_mib: Annotated[
        int, Meta(description="The largest file that a user may upload, in MiB.", ge=1, le=1_048_576)
    ] = 100
    user_quota_mib: Annotated[
        int, Meta(description="How much one user may upload in all, in MiB; 0 for no limit.", ge=0)
    ] = 0
    max_remote_mib: Annotated[
        int,
        Meta(description="The largest file that is fetched from another server, in MiB.", ge=1, le=1_048_576),
    ] = 200
    remote_cache_mib: Annotated[
        int,
        Meta(
            description="How much is kept of other servers' files, and of thumbnails, in MiB. Beyond it the "
            "least recently used go; they are fetched again when somebody asks.",
            ge=1,
        ),
    ] = 2048
    allow_legacy: Annotated[
        bool,
        Meta(
            description="Also answer the old endpoints, which need no login: whoever knows a file's address "
            "can then have it. Only for clients and servers from before 2024."
        ),
    ] = False
    url_previews: Annotated[
        bool,
        Meta(
            description="Let users have links in messages previewed. The server then asks for whatever page "
            "they name, and its owner sees this server's address."
        ),
    ] = False


class Turn(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A TURN server, through which calls go when there is no direct way."""

    uris: Annotated[
        list[str],
        Meta(
            description='Where it is: ["turn:turn.example.org?transport=udp", "turns:turn.example.org"]. '
            "Empty: apps are told of none."
        ),
    ] = []
    shared_secret: Annotated[
        str,
        Meta(
            description="What coturn calls static-auth-secret. From it each user gets credentials that end "
            "by themselves. Keep it secret."
        ),
    ] = ""
    lifetime_minutes: Annotated[
        int, Meta(description="How long a user's credentials are good, in minutes.", ge=1, le=43_200)
    ] = 1440


class Support(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom to ask for help: /.well-known/matrix/support announces what is not empty."""

    email_address: Annotated[str, Meta(description="The administrator's e-mail address.")] = ""
    matrix_id: Annotated[
        str,
        Meta(
            description="The administrator's Matrix id; one on another server still helps when this one is "
            "down."
        ),
    ] = ""
    page: Annotated[str, Meta(description="A web page with help about this server.")] = ""


class RoomDefaults(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Defaults of new rooms."""

    default_version: Annotated[str, Meta(description="The version of rooms made without asking for one.")] = (
        "12"
    )


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be configured."""

    server_name: Annotated[
        str,
        Meta(
            description="The name in every id, @user:NAME. For ever: it can't be changed once the server "
            'has run. "example.org", or with a port, "localhost:8448".'
        ),
    ]
    data_dir: Annotated[
        str,
        Meta(
            description="Folder with everything the server keeps: database, signing key, media. Relative "
            "paths in this file start at this file's own folder."
        ),
    ] = "minihs-data"
    public_base_url: Annotated[
        str,
        Meta(
            description='Where clients reach this server, such as "https://matrix.example.org". Not empty: '
            "/.well-known/matrix/client announces it."
        ),
    ] = ""
    delegated_server: Annotated[
        str,
        Meta(
            description="Where other servers reach this server, if not under server_name itself, such as "
            '"matrix.example.org:443". Not empty: /.well-known/matrix/server announces it.'
        ),
    ] = ""
    listen: Annotated[list[Listen], Meta(description="The sockets to serve on.", min_length=1)] = (
        msgspec.field(default_factory=lambda: [Listen(address="127.0.0.1:8008")])
    )
    registration: Registration = Registration()
    federation: Federation = Federation()
    rate_limits: RateLimits = RateLimits()
    rooms: RoomDefaults = RoomDefaults()
    media: Media = Media()
    turn: Turn = Turn()
    support: Support = Support()

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir)

    @property
    def database_path(self) -> Path:
        return self.data_path / "minihs.db"

    @property
    def admin_socket_path(self) -> Path:
        """Where a running server can be told things by whoever owns the data folder."""
        return self.data_path / "admin.sock"

    @property
    def signing_key_path(self) -> Path:
        return self.data_path / "signing.key"


def load(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read the TOML file; `MINIHS_<KEY>` and `MINIHS_<TABLE>_<KEY>` in the environment override its keys."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file. `minihs init` writes one.") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error
    override(raw, os.environ if environment is None else environment)
    try:
        return check(from_mapping(raw), path.resolve().parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def from_mapping(raw: Mapping[str, Any]) -> Config:
    """Types, known keys and required keys; `check` looks at what the values mean."""
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{error}. (docs/configuration.md lists every key.)") from error


def check(config: Config, base: Path) -> Config:
    """Refuse what can't work, and make every path absolute, from `base` on."""
    if parse_server_name(config.server_name) is None:
        raise ConfigError(
            f"server_name = {config.server_name!r} is not a server name: write a host name, without https://."
        )
    if config.delegated_server and parse_server_name(config.delegated_server) is None:
        raise ConfigError(
            f"delegated_server = {config.delegated_server!r}: write host or host:port, without https://."
        )
    if config.public_base_url and not config.public_base_url.startswith(("https://", "http://")):
        raise ConfigError("public_base_url must begin with https:// (or http://, for a local test).")
    if config.rooms.default_version not in ROOM_VERSIONS:
        raise ConfigError(f"rooms.default_version must be one of {', '.join(ROOM_VERSIONS)}.")
    if config.media.remote_cache_mib < config.media.max_remote_mib:
        raise ConfigError("media.remote_cache_mib must be at least media.max_remote_mib: one file fills it.")
    for uri in config.turn.uris:
        if not uri.startswith(("turn:", "turns:")):
            raise ConfigError(f"turn.uris: {uri!r} must begin with turn: or turns:.")
    if bool(config.turn.uris) != bool(config.turn.shared_secret):
        raise ConfigError("[turn]: give both uris and shared_secret, or neither.")
    check_networks("federation.allow_networks", config.federation.allow_networks)
    for listen in config.listen:
        check_listen(listen)
    return make_absolute(config, base)


def check_listen(listen: Listen) -> None:
    if bool(listen.tls_certificate) != bool(listen.tls_key):
        raise ConfigError(f"listen {listen.address}: give both tls_certificate and tls_key, or neither.")
    check_networks(f"listen {listen.address}: trusted_proxies", listen.trusted_proxies)
    if listen.unix_path is not None:
        if not listen.unix_path:
            raise ConfigError('listen "unix:": the path of the socket is missing.')
        return
    host, _, port = listen.address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(f"listen {listen.address!r}: write address:port, [ipv6]:port or unix:/path.")


def check_networks(key: str, networks: list[str]) -> None:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}.") from error


def make_absolute(config: Config, base: Path) -> Config:
    def absolute(path: str) -> str:
        return str(base / Path(path).expanduser()) if path else ""

    listen = [
        msgspec.structs.replace(
            each,
            address=f"unix:{absolute(each.unix_path)}" if each.unix_path is not None else each.address,
            tls_certificate=absolute(each.tls_certificate),
            tls_key=absolute(each.tls_key),
        )
        for each in config.listen
    ]
    federation = msgspec.structs.replace(config.federation, ca_file=absolute(config.federation.ca_file))
    return msgspec.structs.replace(
        config, data_dir=absolute(config.data_dir), listen=listen, federation=federation
    )


def all_keys(
    struct: type[Struct] = Config, table: str = ""
) -> Iterator[tuple[str, str, msgspec.structs.FieldInfo]]:
    """Every key as (table, name, field), in the order of the file. `listen` comes as its own table."""
    hints = get_type_hints(struct)
    nested: list[tuple[str, type[Struct]]] = []
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        if field.name == "listen":
            nested.append(("listen", Listen))
        elif isinstance(hint, type) and issubclass(hint, Struct):
            nested.append((field.name, hint))
        else:
            yield table, field.name, field
    for name, inner in nested:
        yield from all_keys(inner, name)


def description(table: str, name: str) -> str:
    """What a key means, in a sentence or two."""
    structs = {"": Config, "listen": Listen, "registration": Registration, "federation": Federation}
    structs |= {"rate_limits": RateLimits, "rooms": RoomDefaults, "media": Media, "turn": Turn}
    structs |= {"support": Support}
    hint = get_type_hints(structs[table], include_extras=True)[name]
    return next(meta.description for meta in hint.__metadata__ if isinstance(meta, Meta)) or ""


def environment_name(table: str, name: str) -> str:
    return "_".join(part.upper() for part in ("MINIHS", table, name) if part)


def override(raw: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Apply the environment. Text is taken as it is, anything else as TOML: `true`, `["127.0.0.0/8"]`.

    `MINIHS_LISTEN` replaces all the sockets: `[{address = "0.0.0.0:8448"}]`.
    """
    if "MINIHS_LISTEN" in environment:
        raw["listen"] = toml_value("MINIHS_LISTEN", environment["MINIHS_LISTEN"])
    for table, name, field in all_keys():
        variable = environment_name(table, name)
        if table == "listen" or variable not in environment:
            continue
        text = environment[variable]
        value = text if is_text(field.type) else toml_value(variable, text)
        target = raw.setdefault(table, {}) if table else raw
        if not isinstance(target, dict):
            raise ConfigError(f"{table} must be a table: [{table}].")
        target[name] = value


def is_text(annotation: Any) -> bool:
    hint = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return hint is str or get_origin(hint) is Literal


def toml_value(variable: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError as error:
        raise ConfigError(f"{variable}: {text!r} is not a TOML value: {error}.") from error
