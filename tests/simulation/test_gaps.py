# SPDX-License-Identifier: Apache-2.0
"""Situations that the simulation once came upon, in the fewest steps."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.simulation.crowd import Crowd
from tests.simulation.inspection import Holding
from tests.simulation.stage import run_seeded, stage


def test_what_lies_before_our_join_does_not_come_in_when_a_gap_is_filled(tmp_path: Path) -> None:
    """It would be judged as if it were new: state asked for that nobody can give, while what is new waits;
    joins of a time when the room was open soft-failed by today's rules, so that something old becomes a
    forward extremity, and the room, resolved with the state there, loses its members."""
    run_seeded(_late_joiner, 1, tmp_path)


async def _late_joiner(folder: Path) -> None:
    names = ["a.test", "b.test", "c.test"]
    async with stage(names, folder, seed=1) as world:
        crowd = Crowd(world, 1, people=0)
        await crowd.gather("11")
        alice, bob, carol = (crowd.observers[name] for name in names)
        await alice.set_state(crowd.room_id, "m.room.join_rules", {"join_rule": "invite"})
        await trio.sleep(60)
        at_join = {
            event_id
            for event_id, stored in Holding.of(world, "c.test", crowd.room_id).events().items()
            if stored.outlier
        }
        world.partition(("a.test", "b.test"), ("c.test",))
        await alice.send(crowd.room_id, "carol misses this")
        await trio.sleep(10)
        # Carol's newest event is one that the others lack, so "everything since" has no end that they know.
        ours = await carol.send(crowd.room_id, "meanwhile")
        theirs = await bob.send(crowd.room_id, "and this she gets from bob")
        link = world.internet.link(world["b.test"].host, world["c.test"].host)
        link.set_cut(False)
        await trio.sleep(3600)

        holding = Holding.of(world, "c.test", crowd.room_id)
        assert theirs in holding.events()
        assert holding.extremities() == {ours, theirs}
        assert {event_id for event_id in at_join if not holding.events()[event_id].outlier} == set()
        assert len(at_join) > 5
        members = [key for key in await carol.state(crowd.room_id) if key[0] == "m.room.member"]
        assert len(members) == 3
