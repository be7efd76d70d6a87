# SPDX-License-Identifier: Apache-2.0
"""The one way in which an event fails the authorisation rules (spec: server-server-api, "Rejection")."""

from __future__ import annotations


class AuthError(Exception):
    """The rules of the room's version don't allow this event.

    `args[0]` names the rule by its number in that version's text and is safe to show to anybody. Whether
    the event is then rejected, soft-failed or refused to a client depends on the state that it was checked
    against.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"rule {rule}: {reason}")
        self.rule = rule
        """The number in the text of the room's version, such as `4.3.3`."""
