# SPDX-License-Identifier: Apache-2.0
"""Synapse from PyPI, with SQLite, in an environment of its own that is made once per machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

from tests.interop.kit.environment import python_with
from tests.interop.kit.homeserver import REPOSITORY, Homeserver

REQUIREMENTS = REPOSITORY / "tests" / "interop" / "synapse-requirements.txt"
ENVIRONMENT = REPOSITORY / ".synapse-venv"
CHATTER = ["synapse.util.httpresourcetree", "synapse.util.metrics", "synapse.storage.prepare_database"]
MUCH = {"per_second": 100_000, "burst_count": 100_000}


def synapse_python() -> Path:
    """The interpreter that has Synapse; installs the pinned versions when they aren't there yet."""
    if given := os.environ.get("MINIHS_SYNAPSE_PYTHON"):
        return Path(given)
    return python_with(REQUIREMENTS, ENVIRONMENT)


class Synapse(Homeserver):
    kind = "synapse"

    def command(self) -> list[str]:
        config = str(self.place.folder / "homeserver.yaml")
        return [str(synapse_python()), "-m", "synapse.app.homeserver", "-c", config]

    @property
    def database_files(self) -> list[Path]:
        return [self.place.folder / "homeserver.db"]

    def prepare(self) -> None:
        folder = self.place.folder
        seed = base64.b64encode(hashlib.sha256(self.server_name.encode()).digest()).decode().rstrip("=")
        (folder / "signing.key").write_text(f"ed25519 a_test {seed}\n")
        # JSON is YAML: no library is needed to write it.
        (folder / "log.yaml").write_text(json.dumps(self._logging()))
        (folder / "homeserver.yaml").write_text(json.dumps(self._config()))

    def _logging(self) -> dict[str, object]:
        return {
            "version": 1,
            "formatters": {"line": {"format": "%(asctime)s %(name)s %(levelname)s %(request)s %(message)s"}},
            "filters": {"context": {"()": "synapse.logging.context.LoggingContextFilter", "request": ""}},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["context"]},
            },
            "loggers": {name: {"level": "CRITICAL"} for name in CHATTER},
            "root": {"level": self.place.options.get("log_level", "INFO"), "handlers": ["stderr"]},
            "disable_existing_loggers": False,
        }

    def _config(self) -> dict[str, object]:
        place = self.place
        folder = place.folder
        apis = [{"names": ["client", "federation"], "compress": False}]
        loopback = ["127.0.0.1"]
        return {
            "server_name": place.server_name,
            "pid_file": str(folder / "pid"),
            "listeners": [
                {
                    "port": place.federation_port,
                    "tls": True,
                    "type": "http",
                    "bind_addresses": loopback,
                    "resources": apis,
                },
                {
                    "port": place.client_port,
                    "tls": False,
                    "type": "http",
                    "bind_addresses": loopback,
                    "resources": apis,
                },
            ],
            "tls_certificate_path": str(place.authority.certificate),
            "tls_private_key_path": str(place.authority.key),
            "federation_custom_ca_list": [str(place.authority.ca_file)],
            "ip_range_blacklist": [],
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
            "log_config": str(folder / "log.yaml"),
            "media_store_path": str(folder / "media"),
            "signing_key_path": str(folder / "signing.key"),
            "registration_shared_secret": place.secret,
            "macaroon_secret_key": "macaroon secret of the tests",
            "form_secret": "form secret of the tests",
            "report_stats": False,
            "bcrypt_rounds": 4,
            "presence": {"enabled": bool(place.options.get("presence", False))},
            "room_list_publication_rules": [{"action": "allow"}],
            "allow_public_rooms_over_federation": True,
            # A server that was away is tried again soon, or the tests would wait for ten minutes.
            "federation": {
                "client_timeout": "20s",
                "max_short_retries": 1,
                "max_long_retries": 2,
                "max_short_retry_delay": "1s",
                "max_long_retry_delay": "2s",
                "destination_min_retry_interval": 500,
                "destination_retry_multiplier": 2,
                "destination_max_retry_interval": "2s",
            },
            **self._no_rate_limits(),
            **_mapping(place.options.get("synapse")),
        }

    def _no_rate_limits(self) -> dict[str, object]:
        return {
            "rc_message": MUCH,
            "rc_registration": MUCH,
            "rc_registration_token_validity": MUCH,
            "rc_login": {"address": MUCH, "account": MUCH, "failed_attempts": MUCH},
            "rc_admin_redaction": MUCH,
            "rc_joins": {"local": MUCH, "remote": MUCH},
            "rc_joins_per_room": MUCH,
            "rc_invites": {"per_room": MUCH, "per_user": MUCH, "per_issuer": MUCH},
            "rc_presence": {"per_user": MUCH},
            "rc_key_requests": MUCH,
            "rc_room_creation": MUCH,
            "rc_federation": {
                "window_size": 1000,
                "sleep_limit": 100_000,
                "sleep_delay": 1,
                "reject_limit": 100_000,
                "concurrent": 100,
            },
            "federation_rr_transactions_per_room_per_second": 10_000,
        }


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
