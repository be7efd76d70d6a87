# SPDX-License-Identifier: Apache-2.0
"""The configuration: reading it, what it refuses, and that the texts about it are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minihs import config
from minihs.config import Config, ConfigError

ROOT = Path(__file__).parent.parent


def load(tmp_path: Path, text: str, **environment: str) -> Config:
    path = tmp_path / "minihs.toml"
    path.write_text(text)
    return config.load(path, environment)


class TestLoading:
    def test_one_line_is_enough(self, tmp_path: Path) -> None:
        loaded = load(tmp_path, 'server_name = "example.org"')
        assert loaded.server_name == "example.org"
        assert loaded.rooms.default_version == "12"
        assert loaded.registration.mode == "closed"
        assert loaded.rate_limits.enabled
        assert loaded.federation.verify_tls

    def test_the_whole_contract_is_understood(self, tmp_path: Path) -> None:
        loaded = load(
            tmp_path,
            """
            server_name = "example.org"
            data_dir = "data"
            public_base_url = "https://matrix.example.org"
            delegated_server = "matrix.example.org:443"
            [[listen]]
            address = "0.0.0.0:8448"
            tls_certificate = "fullchain.pem"
            tls_key = "/etc/privkey.pem"
            apis = ["federation", "client"]
            trusted_proxies = ["10.0.0.0/8", "::1"]
            [[listen]]
            address = "unix:run/minihs.sock"
            apis = ["client"]
            [registration]
            mode = "token"
            shared_secret = "s"
            [federation]
            verify_tls = false
            ca_file = "ca.pem"
            allow_networks = ["127.0.0.0/8"]
            [rate_limits]
            enabled = false
            [rooms]
            default_version = "11"
            """,
        )
        assert loaded.data_dir == str(tmp_path / "data")
        assert loaded.listen[0].tls_certificate == str(tmp_path / "fullchain.pem")
        assert loaded.listen[0].tls_key == "/etc/privkey.pem"
        assert loaded.listen[0].tcp == ("0.0.0.0", 8448)  # noqa: S104 - what the example says
        assert loaded.listen[1].unix_path == str(tmp_path / "run/minihs.sock")
        assert loaded.federation.ca_file == str(tmp_path / "ca.pem")
        assert not loaded.federation.verify_tls
        assert loaded.registration.mode == "token"
        assert not loaded.rate_limits.enabled
        assert loaded.rooms.default_version == "11"

    def test_the_environment_overrides_the_file(self, tmp_path: Path) -> None:
        loaded = load(
            tmp_path,
            'server_name = "example.org"\n[rooms]\ndefault_version = "10"',
            MINIHS_SERVER_NAME="other.example",
            MINIHS_ROOMS_DEFAULT_VERSION="11",
            MINIHS_RATE_LIMITS_ENABLED="false",
            MINIHS_FEDERATION_ALLOW_NETWORKS='["127.0.0.0/8"]',
            MINIHS_LISTEN='[{address = "127.0.0.1:1"}]',
            MINIHS_UNRELATED="x",
        )
        assert loaded.server_name == "other.example"
        assert loaded.rooms.default_version == "11"
        assert not loaded.rate_limits.enabled
        assert loaded.federation.allow_networks == ["127.0.0.0/8"]
        assert [listen.address for listen in loaded.listen] == ["127.0.0.1:1"]

    def test_an_ipv6_address_is_taken_apart(self, tmp_path: Path) -> None:
        loaded = load(tmp_path, 'server_name = "a"\n[[listen]]\naddress = "[::1]:8448"')
        assert loaded.listen[0].tcp == ("::1", 8448)


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "server_name"),
            ("server_name =", "not valid TOML"),
            ('server_name = "https://example.org"', "without https://"),
            ('server_name = "a b"', "server_name"),
            ("server_name = 1", "server_name"),
            ('server_name = "a"\nsever_name = "b"', "sever_name"),
            ('server_name = "a"\n[rooms]\ndefault = "12"', "default"),
            ('server_name = "a"\n[rooms]\ndefault_version = "99"', "default_version"),
            ('server_name = "a"\n[registration]\nmode = "maybe"', "mode"),
            ('server_name = "a"\n[rate_limits]\nenabled = "yes"', "enabled"),
            ('server_name = "a"\n[federation]\nallow_networks = ["home"]', "allow_networks"),
            ('server_name = "a"\ndelegated_server = "https://b"', "delegated_server"),
            ('server_name = "a"\npublic_base_url = "b"', "public_base_url"),
            ('server_name = "a"\n[turn]\nuris = ["stun:b"]\nshared_secret = "s"', "turns:"),
            ('server_name = "a"\n[turn]\nuris = ["turn:b"]', "both"),
            ('server_name = "a"\nlisten = []', "listen"),
            ('server_name = "a"\n[[listen]]\naddress = "8448"', "address:port"),
            ('server_name = "a"\n[[listen]]\naddress = ":8448"', "address:port"),
            ('server_name = "a"\n[[listen]]\naddress = "a:99999"', "address:port"),
            ('server_name = "a"\n[[listen]]\naddress = "unix:"', "path"),
            ('server_name = "a"\n[[listen]]\naddress = "a:1"\ntls_key = "k"', "both"),
            ('server_name = "a"\n[[listen]]\naddress = "a:1"\napis = ["admin"]', "apis"),
            ('server_name = "a"\n[[listen]]\naddress = "a:1"\napis = []', "apis"),
            ('server_name = "a"\n[[listen]]\naddress = "a:1"\ntrusted_proxies = ["x"]', "trusted_proxies"),
        ],
    )
    def test_a_mistake_is_named(self, tmp_path: Path, text: str, complaint: str) -> None:
        with pytest.raises(ConfigError) as refusal:
            load(tmp_path, text)
        assert complaint in str(refusal.value)
        assert str(tmp_path / "minihs.toml") in str(refusal.value)

    def test_a_missing_file_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="minihs init"):
            config.load(tmp_path / "nothing.toml", {})

    def test_a_bad_value_in_the_environment_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="MINIHS_RATE_LIMITS_ENABLED"):
            load(tmp_path, 'server_name = "a"', MINIHS_RATE_LIMITS_ENABLED="of course")


class TestTexts:
    def test_the_example_is_valid_and_shows_the_defaults(self, tmp_path: Path) -> None:
        """Everything in it that is not commented out, except for the listeners, is what would be anyway."""
        text = (ROOT / "minihs.toml.example").read_text()
        shown = load(tmp_path, text)
        defaults = load(tmp_path, f'server_name = "{shown.server_name}"')
        for table, name, _ in config.all_keys():
            if table != "listen":
                assert value(shown, table, name) == value(defaults, table, name), f"{table}.{name}"

    def test_the_example_has_every_key(self) -> None:
        text = (ROOT / "minihs.toml.example").read_text()
        for table, name, _ in config.all_keys():
            section = text if not table else re.split(rf"^\[+{table}\]+$", text, maxsplit=1, flags=re.M)[1]
            assert re.search(rf"^(# )?{name} = ", section, re.M), f"{table}.{name} is missing"

    def test_the_documentation_has_every_key_with_its_meaning_and_variable(self) -> None:
        text = (ROOT / "docs" / "configuration.md").read_text()
        sections = dict(re.findall(r"^### `([a-z._]+)`\n(.*?)(?=^##|\Z)", text, re.M | re.S))
        expected = {f"{table}.{name}".lstrip("."): (table, name) for table, name, _ in config.all_keys()}
        assert sections.keys() == expected.keys()
        for key, (table, name) in expected.items():
            section = " ".join(sections[key].split())
            assert config.description(table, name) in section, key
            if table != "listen":
                assert config.environment_name(table, name) in section, key


def value(loaded: Config, table: str, name: str) -> object:
    return getattr(getattr(loaded, table) if table else loaded, name)
