# SPDX-License-Identifier: Apache-2.0
"""User-Interactive Authentication: a request is repeated with proof after proof until a flow is complete.

(client-server-api, "User-Interactive Authentication API".) Sessions live in memory, for an hour. They hold
which stages were passed, for which user and which action, and nothing of the request: never a password.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json
from minihs.runtime import Runtime

DUMMY = "m.login.dummy"
PASSWORD = "m.login.password"  # noqa: S105 - the name of a stage
REGISTRATION_TOKEN = "m.login.registration_token"  # noqa: S105 - the name of a stage

MAX_SESSIONS = 1000
SESSION_LIFETIME_MS = 3_600_000


class InteractionNeeded(MatrixError):
    """The request must be repeated with `auth`: a 401 that says what is wanted.

    It has an errcode only if a try failed.
    """

    def __init__(self, challenge: JsonObject, failure: MatrixError | None = None) -> None:
        super().__init__(
            401,
            failure.errcode if failure else "M_FORBIDDEN",
            failure.message if failure else "The user must confirm this.",
        )
        self._challenge = challenge
        self._failed = failure is not None

    def to_json(self) -> JsonObject:
        if self._failed:
            return {**self._challenge, "errcode": self.errcode, "error": self.message}
        return self._challenge


@dataclass(slots=True)
class Session:
    session_id: str
    action: str
    user_id: str | None
    created_ms: int
    completed: list[str] = field(default_factory=list)
    notes: dict[str, bytes] = field(default_factory=dict)
    """What a stage found out and the request needs in the end, such as which registration token was shown."""
    flows: Sequence[Sequence[str]] = ()
    stages: Mapping[str, Stage] = field(default_factory=dict)


type Stage = Callable[[JsonObject, Session], Awaitable[None]]
"""Checks the `auth` of one stage; MatrixError if it does not hold."""


async def always(auth: JsonObject, session: Session) -> None:
    """The dummy stage."""


class Interactions:
    """The sessions of one server."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    async def confirm(
        self,
        auth: object,
        *,
        action: str,
        user_id: str | None,
        flows: Sequence[Sequence[str]],
        stages: Mapping[str, Stage],
    ) -> Session:
        """Return when a flow is complete; InteractionNeeded until then.

        `auth` is that of the request. `action` names what is confirmed, with its object ("delete device
        ABC"), and `user_id` who asks: a session is good for nothing else.
        """
        if auth is None:
            session = self._start(action, user_id)
            session.flows, session.stages = flows, stages
            raise self._challenge(session, flows)
        if not isinstance(auth, dict):
            raise bad_json("auth must be an object.")
        session = self._resume(auth, action, user_id, flows)
        session.flows, session.stages = flows, stages
        stage = auth.get("type")
        if stage is not None and stage not in session.completed:
            await self._pass(stage, auth, session, flows, stages)
        if session.completed not in [list(flow) for flow in flows]:
            raise self._challenge(session, flows)
        self._sessions.pop(session.session_id, None)
        return session

    def knows(self, session_id: str, stage: str) -> bool:
        """Is there a session of this id that the stage belongs to?"""
        session = self._sessions.get(session_id)
        too_old = self._runtime.clock.now_ms() - SESSION_LIFETIME_MS
        return (
            session is not None
            and session.created_ms >= too_old
            and any(stage in flow for flow in session.flows)
        )

    async def pass_in_browser(self, session_id: str, stage: str, auth: JsonObject) -> None:
        """Pass one stage by the fallback page; the client then repeats its request with the session alone.

        MatrixError if `auth` does not hold, or there is no such session.
        """
        if not self.knows(session_id, stage):
            raise MatrixError(404, "M_NOT_FOUND", "The session is unknown, too old, or for something else.")
        session = self._sessions[session_id]
        if stage not in session.completed:
            await self._pass(stage, auth, session, session.flows, session.stages)

    async def _pass(
        self,
        stage: object,
        auth: JsonObject,
        session: Session,
        flows: Sequence[Sequence[str]],
        stages: Mapping[str, Stage],
    ) -> None:
        done = len(session.completed)
        following = [
            flow[done] for flow in flows if len(flow) > done and list(flow[:done]) == session.completed
        ]
        if not isinstance(stage, str) or stage not in following:
            failure = MatrixError(401, "M_UNRECOGNIZED", "This is not a stage that can come next.")
            raise self._challenge(session, flows, failure)
        try:
            await stages[stage](auth, session)
        except MatrixError as error:
            if error.status == 429:
                raise
            raise self._challenge(session, flows, error) from error
        if stage not in session.completed:  # the same may have come twice at once
            session.completed.append(stage)

    def _start(self, action: str, user_id: str | None) -> Session:
        session_id = self._runtime.random.token_urlsafe(24)
        session = Session(session_id, action, user_id, self._runtime.clock.now_ms())
        self._sessions[session_id] = session
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def _resume(
        self, auth: JsonObject, action: str, user_id: str | None, flows: Sequence[Sequence[str]]
    ) -> Session:
        session_id = auth.get("session")
        if session_id is None:
            # Clients that know the flow beforehand leave the first, unauthenticated request out.
            return self._start(action, user_id)
        if not isinstance(session_id, str):
            raise bad_json("session must be a string.")
        session = self._sessions.get(session_id)
        too_old = self._runtime.clock.now_ms() - SESSION_LIFETIME_MS
        if (
            session is None
            or session.created_ms < too_old
            or (session.action, session.user_id) != (action, user_id)
        ):
            failure = MatrixError(401, "M_UNKNOWN", "The session is unknown, too old, or for something else.")
            raise self._challenge(self._start(action, user_id), flows, failure)
        return session

    def _challenge(
        self, session: Session, flows: Sequence[Sequence[str]], failure: MatrixError | None = None
    ) -> InteractionNeeded:
        challenge: JsonObject = {
            "flows": [{"stages": list(flow)} for flow in flows],
            "params": {},
            "session": session.session_id,
        }
        if session.completed:
            challenge["completed"] = list(session.completed)
        return InteractionNeeded(challenge, failure)
