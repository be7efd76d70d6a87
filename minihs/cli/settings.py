# SPDX-License-Identifier: Apache-2.0
"""Which configuration a verb works with: the one named, else ./minihs.toml, else that of a local server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minihs import config
from minihs.config import Config, ConfigError

DEFAULT_FILE = Path("minihs.toml")
LOCAL_NAME = "localhost:8448"
LOCAL_DATA = "minihs-data"


def find(path: Path | None, environment: Mapping[str, str] | None = None) -> Config | None:
    """The configuration; None if none was named and there is no ./minihs.toml."""
    if path is not None:
        return config.load(path, environment)
    return config.load(DEFAULT_FILE, environment) if DEFAULT_FILE.exists() else None


def require(path: Path | None) -> Config:
    """For verbs that work on a server that is there already; the local one counts once it has run."""
    found = find(path)
    if found is not None:
        return found
    if (Path(LOCAL_DATA) / "signing.key").exists():
        return local(Path.cwd())
    raise ConfigError("there is no ./minihs.toml. Name the file with --config, or run `minihs init` first.")


def local(base: Path, environment: Mapping[str, str] | None = None) -> Config:
    """A server to try out, reachable from this machine only."""
    data = base / LOCAL_DATA
    raw: dict[str, Any] = {
        "server_name": LOCAL_NAME,
        "data_dir": str(data),
        "public_base_url": f"https://{LOCAL_NAME}",
        "listen": [
            {
                "address": LOCAL_NAME,
                "tls_certificate": str(data / "self-signed.pem"),
                "tls_key": str(data / "self-signed.key"),
            }
        ],
    }
    config.override(raw, environment or {})
    return config.check(config.from_mapping(raw), base)
