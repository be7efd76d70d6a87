# SPDX-License-Identifier: Apache-2.0
"""What a push gateway is told (push-gateway-api, "Homeserver behaviour")."""

from __future__ import annotations

from urllib.parse import urlsplit

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import invalid_param
from minihs.push.ports import News
from minihs.store.pushers import Pusher

NOTIFY_PATH = "/_matrix/push/v1/notify"

EVENT_ID_ONLY = "event_id_only"


def check_url(url: str) -> None:
    """The address of a gateway. Whether it can be dialled shows when it is."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.path == NOTIFY_PATH
    except ValueError:
        good = False
    if not good:
        raise invalid_param(f"data.url must be an HTTPS URL with a path of {NOTIFY_PATH}.")


def device_of(pusher: Pusher, tweaks: JsonObject | None = None) -> JsonObject:
    """The device, as a gateway knows it."""
    data = {name: value for name, value in pusher.about["data"].items() if name != "url"}
    device: JsonObject = {
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "pushkey_ts": pusher.created_ts // 1000,
        "data": data,
    }
    if tweaks:
        device["tweaks"] = tweaks
    return device


def badge_body(count: int, device: JsonObject) -> JsonObject:
    """Only how many messages are unread. A count of zero is left out."""
    return {"notification": {"counts": {"unread": count} if count else {}, "devices": [device]}}


def body_of(news: News, count: int, device: JsonObject, *, user_id: str) -> JsonObject:
    """An event, whole or only its id, as the pusher wants it."""
    event = news.event
    notification: JsonObject = {
        "event_id": event["event_id"],
        "room_id": event["room_id"],
        "counts": {"unread": count} if count else {},
        "devices": [device],
        "prio": "high" if _is_urgent(news) else "low",
    }
    if device["data"].get("format") == EVENT_ID_ONLY:
        return {"notification": notification}
    notification["type"] = event["type"]
    notification["sender"] = event["sender"]
    notification["content"] = event["content"]
    for name, value in (
        ("sender_display_name", news.sender_name),
        ("room_name", news.room_name),
        ("room_alias", news.room_alias),
    ):
        if value is not None:
            notification[name] = value
    if event["type"] == "m.room.member":
        notification["user_is_target"] = event.get("state_key") == user_id
    return {"notification": notification}


def _is_urgent(news: News) -> bool:
    """What makes a sound or is highlighted; and what only the device can judge, since it is encrypted."""
    tweaks = news.tweaks
    return bool(tweaks.get("sound") or tweaks.get("highlight")) or news.event["type"] == "m.room.encrypted"
