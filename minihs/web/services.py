# SPDX-License-Identifier: Apache-2.0
"""The parts of a running server, as route handlers receive them in `call.services`.

`server.py` builds them. Each part is a field; there is no other way from a route to the rest of the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from werkzeug.datastructures import Headers

from minihs.config import Config
from minihs.e2ee.service import E2ee
from minihs.federation.client import FederationClient
from minihs.federation.keyring import Keyring
from minihs.federation.senders import Senders
from minihs.matrix.signatures import SigningKey
from minihs.media.service import Media
from minihs.push.pushers import Pushers
from minihs.push.rules import PushRules
from minihs.rooms.service import Rooms
from minihs.runtime import Runtime
from minihs.store.database import Database
from minihs.sync.service import Sync
from minihs.sync.spaces import Spaces
from minihs.users.service import Users


class RequestAuthenticator(Protocol):
    """Checks X-Matrix signatures (`federation/request_auth.py`)."""

    async def authenticate(
        self, method: str, raw_uri: str, headers: Headers, content: Any, *, floats: bool | None = None
    ) -> str:
        """The server name that signed the request; MatrixError 401 if it is not rightly signed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All the parts. Others add theirs as they come to be."""

    config: Config
    runtime: Runtime
    db: Database
    signing_key: SigningKey
    users: Users
    e2ee: E2ee
    push_rules: PushRules
    pushers: Pushers
    sync: Sync
    rooms: Rooms
    media: Media
    spaces: Spaces
    keyring: Keyring
    federation: FederationClient
    senders: Senders
    request_auth: RequestAuthenticator
