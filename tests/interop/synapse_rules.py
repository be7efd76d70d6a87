# SPDX-License-Identifier: Apache-2.0
"""Synapse's auth rules as a filter. Runs in Synapse's environment.

Each line of its input is a JSON object: `version`, `event`, and `state`, what it is judged by. Each
line of its output is null for an event that is allowed, or else the reason.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import synapse.event_auth as rules
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import make_event_from_dict


def refusal(case: dict[str, Any]) -> str | None:
    version = KNOWN_ROOM_VERSIONS[case["version"]]
    event = make_event_from_dict(case["event"], version)
    try:
        rules.validate_event_for_room_version(event)
        rules.check_state_dependent_auth_rules(
            event, [make_event_from_dict(each, version) for each in case["state"]]
        )
    except SynapseError as error:
        return str(error.msg)
    return None


for line in sys.stdin:
    sys.stdout.write(json.dumps(refusal(json.loads(line))) + "\n")
