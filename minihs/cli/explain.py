# SPDX-License-Identifier: Apache-2.0
"""`minihs explain event|room|state`: why an event met its fate, how a room is, which event won a conflict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minihs.cli.asking import show, when
from minihs.rooms import explain

type JsonObject = dict[str, Any]

ROUTE = "/_minihs/admin/explain"


def event(path: Path | None, event_id: str, *, as_json: bool) -> int:
    return show(
        path,
        route=ROUTE,
        body={"event": event_id},
        read=lambda db, now: explain.explain_event(db, event_id),
        text=event_text,
        as_json=as_json,
    )


def room(path: Path | None, room_id: str, *, as_json: bool) -> int:
    return show(
        path,
        route=ROUTE,
        body={"room": room_id},
        read=lambda db, now: explain.explain_room(db, room_id, now),
        text=room_text,
        as_json=as_json,
    )


def state(path: Path | None, room_id: str, type: str, state_key: str, *, as_json: bool) -> int:
    return show(
        path,
        route=ROUTE,
        body={"room": room_id, "type": type, "state_key": state_key},
        read=lambda db, now: explain.explain_state(db, room_id, type, state_key),
        text=state_text,
        as_json=as_json,
    )


def event_text(answer: JsonObject) -> str:
    inbox = answer.get("inbox")
    lines = []
    if "outcome" not in answer:
        lines.append(f"{answer['event_id']} is in no room yet.")
    else:
        lines += [
            f"{answer['event_id']}: {answer['outcome']}"
            + (f" ({answer['reason']})" if answer["reason"] else ""),
            f"  {_what(answer)} in {answer['room_id']} (version {answer['room_version']})",
            f"  made {when(answer['origin_server_ts'])}, received {when(answer['received_ts'])}, "
            f"{answer['bytes']} bytes, signed by {', '.join(answer['signed_by']) or 'nobody'}",
        ]
        if answer["outlier"]:
            lines.append("  It has no place in the timeline: the state at it is not known (an outlier).")
        else:
            place = answer["place"]
            lines.append(f"  depth {answer['depth']}, place {place and place['topo']}")
        if answer["redacted"]:
            lines.append("  It was redacted.")
        if "is_current_state" in answer:
            current = answer["current_state_event"]
            lines.append(
                "  It is the current state."
                if answer["is_current_state"]
                else f"  The current state is {current}."
            )
        lines.append("checked now, it is")
        for check in answer["checks"]:
            verdict = "allowed" if check["allowed"] else f"refused: {check['reason']}"
            lines.append(f"  by {check['check']}: {verdict}")
        for name in ("auth_events", "prev_events"):
            lines.append(name)
            lines += [f"  {_reference(each)}" for each in answer[name]] or ["  none"]
    if inbox is not None:
        lines.append(
            f"  In the inbox: {inbox['kind']} since {when(inbox['received_ts'])}, from {inbox['origin']}, "
            f"{inbox['attempts']} attempts, next {when(inbox['not_before'] or None)}"
        )
    return "\n".join(lines)


def room_text(answer: JsonObject) -> str:
    members = ", ".join(f"{count} {kind}" for kind, count in sorted(answer["members"].items()))
    events, inbox = answer["events"], answer["inbox"]
    lines = [
        f"{answer['room_id']}, version {answer['version']}"
        + ("" if answer["resident"] else ": this server is not in it"),
        f"  members: {members or 'none'}; of this server {', '.join(answer['local_members']) or 'none'}",
        f"  servers: {answer['servers']}, the largest "
        + ", ".join(f"{host} ({count})" for host, count in list(answer["largest_servers"].items())[:5]),
        f"  events: {events['accepted']} accepted, {events['soft_failed']} soft-failed, "
        f"{events['rejected']} rejected, {events['outliers']} outliers; "
        f"{answer['state_events']} make up the state",
        f"  inbox: {inbox['due']} due, {inbox['deferred']} deferred, {inbox['set_aside']} set aside; "
        f"{answer['gaps']} gaps in the history",
    ]
    awaited = answer.get("members_awaited")
    if awaited:
        lines.append(
            f"  not all members are known yet: joined through {awaited['joined_through']}, "
            f"{awaited['events_since']} events since, {awaited['attempts']} attempts to fetch them, "
            f"next {when(awaited['next'] or None)}"
        )
    if answer.get("policy_server"):
        lines.append(f"  policy server: {answer['policy_server']}")
    lines.append(f"forward extremities ({len(answer['forward_extremities'])})")
    lines += [f"  {_reference(each)}, depth {each['depth']}" for each in answer["forward_extremities"]]
    return "\n".join(lines)


def state_text(answer: JsonObject) -> str:
    current, conflict = answer["current"], answer["conflict"]
    lines = [f"{answer['type']} {answer['state_key']!r} of {answer['room_id']}"]
    lines.append("  is " + ("not set" if current is None else _reference(current)))
    lines.append("all that were to set it, the newest first")
    lines += [f"  {_reference(each)}" for each in answer["events"]] or ["  none"]
    if conflict is None:
        lines.append("There was no conflict over it.")
        return "\n".join(lines)
    lines.append(f"conflict between {conflict['between']}, in the order of replaying")
    for each in conflict["candidates"]:
        mark = "*" if each["wins"] else " "
        kind = "power event, " if each["power_event"] else ""
        refusal = f"; {each['refused']}" if each["refused"] else ""
        lines.append(f" {mark} {_reference(each)}, {kind}sender's level {each['senders_level']}{refusal}")
    if conflict["winner"] is None:
        lines.append("   none of them is allowed")
    lines.append(f"  {conflict['why']}")
    return "\n".join(lines)


def _what(each: JsonObject) -> str:
    key = f" {each['state_key']!r}" if "state_key" in each else ""
    membership = f" ({each['membership']})" if "membership" in each else ""
    return f"{each['type']}{key}{membership} by {each['sender']}"


def _reference(each: JsonObject) -> str:
    if not each.get("known", True):
        return f"{each['event_id']}: not here"
    outcome = each.get("outcome", "accepted")
    fate = (
        ""
        if outcome == "accepted"
        else f", {outcome}" + (f" ({each['reason']})" if each.get("reason") else "")
    )
    return f"{each['event_id']}: {_what(each)}, {when(each['origin_server_ts'])}{fate}"
