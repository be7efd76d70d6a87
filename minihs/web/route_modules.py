# SPDX-License-Identifier: Apache-2.0
"""The list of everything that is served: a module of `routes/` is in it if it is imported here."""

# ruff: noqa: F401  (the imports are the list)

from __future__ import annotations

from types import ModuleType

from minihs.web.routes import admin, synapse_admin, well_known
from minihs.web.routes.client import (
    account,
    account_data,
    dehydrated_devices,
    devices,
    directory,
    events,
    fallback,
    filters,
    initial_sync,
    joined,
    keys,
    login,
    media,
    members,
    messages,
    misc,
    mutual_rooms,
    profile,
    push_rules,
    pushers,
    receipts,
    register,
    relations,
    report,
    room_keys,
    room_state,
    rooms,
    search,
    server_admin,
    sliding_sync,
    spaces,
    sync,
    timestamp,
    to_device,
    typing,
    upgrade,
    versions,
)
from minihs.web.routes.federation import directory as federation_directory
from minihs.web.routes.federation import events as federation_events
from minihs.web.routes.federation import keys as server_keys
from minihs.web.routes.federation import media as federation_media
from minihs.web.routes.federation import membership, queries, third_party, transactions, unstable
from minihs.web.routes.federation import spaces as federation_spaces
from minihs.web.routes.federation import users as federation_users

ROUTE_MODULES = [each for each in list(globals().values()) if isinstance(each, ModuleType)]
