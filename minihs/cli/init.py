# SPDX-License-Identifier: Apache-2.0
"""`minihs init`: a configuration file and the signing key, ready for `minihs serve`."""

from __future__ import annotations

import json
from pathlib import Path

from minihs import config, signing_key
from minihs.config import ConfigError
from minihs.runtime import SystemRandomness

TEMPLATE = """\
# Every key, its meaning and its default: docs/configuration.md and minihs.toml.example.

server_name = {server_name}        # for ever: it is in every id
data_dir = {data_dir}

# Where clients reach this server, if not at https://{plain_name}:
# public_base_url = "https://matrix.{plain_host}"

[[listen]]
address = "127.0.0.1:8008"         # plain HTTP, for a reverse proxy on this machine that does TLS
trusted_proxies = ["127.0.0.1"]

# Without a proxy, serve other servers and clients directly:
# [[listen]]
# address = "0.0.0.0:8448"
# tls_certificate = "fullchain.pem"
# tls_key = "privkey.pem"
"""


def init(path: Path, server_name: str, data_dir: str) -> int:
    """Write the file, then the key if there is none. An existing file is never touched."""
    host = server_name.rpartition(":")[0] or server_name
    # A JSON string is a TOML string, too.
    text = TEMPLATE.format(
        server_name=json.dumps(server_name),
        data_dir=json.dumps(data_dir),
        plain_name=server_name,
        plain_host=host,
    )
    raw = {"server_name": server_name, "data_dir": data_dir}
    checked = config.check(config.from_mapping(raw), path.resolve().parent)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists already; it is not overwritten. Edit it, or remove it.") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}.") from error
    key = signing_key.load_or_create(checked.signing_key_path, SystemRandomness())
    print(f"Wrote {path} for {server_name}; its signing key {key.key_id} is in {checked.signing_key_path}.")
    print("Keep a copy of the key in a safe place: it is the server's identity.")
    print(f"Next: minihs user add NAME --admin --config {path}; minihs serve --config {path}")
    return 0
