# SPDX-License-Identifier: Apache-2.0
"""User-Interactive Authentication with flows of several stages."""

from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.errors import forbidden, limit_exceeded
from minihs.runtime import Runtime
from minihs.users.interactive import MAX_SESSIONS, InteractionNeeded, Interactions, Session, always

FLOWS = [["a", "b"], ["a", "c"], ["d"]]


async def never(auth: dict[str, Any], session: Session) -> None:
    raise forbidden("No.")


class Flow:
    """One user's way through a flow."""

    def __init__(self) -> None:
        self.interactions = Interactions(Runtime())
        self.session: str | None = None
        self.stages = {"a": always, "b": always, "c": never, "d": always}

    async def submit(self, stage: str | None, **more: Any) -> dict[str, Any] | Session:
        auth = {"type": stage, "session": self.session, **more} if stage else {"session": self.session}
        try:
            return await self.interactions.confirm(
                auth, action="test", user_id="@alice:example.org", flows=FLOWS, stages=self.stages
            )
        except InteractionNeeded as needed:
            answer = needed.to_json()
            self.session = answer["session"]
            return answer


async def test_stages_are_passed_one_after_the_other() -> None:
    flow = Flow()
    answer = await flow.submit("a")
    assert isinstance(answer, dict)
    assert answer["completed"] == ["a"]
    assert answer["flows"] == [{"stages": stages} for stages in FLOWS]
    assert "errcode" not in answer
    done = await flow.submit("b")
    assert isinstance(done, Session)
    assert done.completed == ["a", "b"]


async def test_a_stage_out_of_order_is_refused() -> None:
    flow = Flow()
    answer = await flow.submit("b")
    assert isinstance(answer, dict)
    assert answer["errcode"] == "M_UNRECOGNIZED"
    await flow.submit("a")
    answer = await flow.submit("d")
    assert isinstance(answer, dict)
    assert (answer["errcode"], answer["completed"]) == ("M_UNRECOGNIZED", ["a"])


async def test_a_failed_stage_leaves_what_was_passed() -> None:
    flow = Flow()
    await flow.submit("a")
    answer = await flow.submit("c")
    assert isinstance(answer, dict)
    assert (answer["errcode"], answer["error"], answer["completed"]) == ("M_FORBIDDEN", "No.", ["a"])
    assert isinstance(await flow.submit("b"), Session)


async def test_a_passed_stage_is_not_tried_again() -> None:
    flow = Flow()
    await flow.submit("a")
    flow.stages["a"] = never
    answer = await flow.submit("a")
    assert isinstance(answer, dict)
    assert answer["completed"] == ["a"]
    assert "errcode" not in answer


async def test_a_session_alone_tells_how_far_one_is() -> None:
    flow = Flow()
    await flow.submit("a")
    answer = await flow.submit(None)
    assert isinstance(answer, dict)
    assert answer["completed"] == ["a"]


async def test_a_rate_limit_stays_a_rate_limit() -> None:
    async def limited(auth: dict[str, Any], session: Session) -> None:
        raise limit_exceeded(1000)

    flow = Flow()
    flow.stages["d"] = limited
    with pytest.raises(Exception, match="M_LIMIT_EXCEEDED"):
        await flow.submit("d")


async def test_the_number_of_sessions_is_bounded_and_the_oldest_go() -> None:
    flow = Flow()
    await flow.submit("a")
    first = flow.session
    for _ in range(MAX_SESSIONS):
        flow.session = None
        await flow.submit("a")
    assert len(flow.interactions._sessions) == MAX_SESSIONS
    flow.session = first
    answer = await flow.submit("b")
    assert isinstance(answer, dict)
    assert answer["errcode"] == "M_UNKNOWN"
