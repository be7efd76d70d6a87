# SPDX-License-Identifier: Apache-2.0
"""State resolution: which state a room has where its history forked (spec: rooms/v1, v2 and v12)."""

from __future__ import annotations

from minihs.matrix.state_resolution.graph import AuthGraph, ChainIndex
from minihs.matrix.state_resolution.replay import Witness
from minihs.matrix.state_resolution.resolve import resolve
from minihs.matrix.state_resolution.store import EventStore, MissingEventError, StateLookup

__all__ = [
    "AuthGraph",
    "ChainIndex",
    "EventStore",
    "MissingEventError",
    "StateLookup",
    "Witness",
    "resolve",
]
