# SPDX-License-Identifier: Apache-2.0
"""make_join, make_leave and make_knock as the one who asks: from a resident's template to our own event.

A template is never signed. Only its prev_events, auth_events, depth and, for a restricted join, the user
who vouches for us are taken, each checked; all else is ours, so that nobody can have us sign something
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, too_large
from minihs.matrix.event import Event, EventError, build_event
from minihs.matrix.event_format import MAX_AUTH_EVENTS, MAX_PREV_EVENTS
from minihs.matrix.federation_errors import FederationError, RemoteProtocolError, RemoteRefused
from minihs.matrix.ids import domain_of, fits, is_event_id, is_user_id
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.rooms.admission import Source, admit_one
from minihs.rooms.parts import Parts

MAX_CANDIDATES = 6
"""Servers tried, one after another, to get into a room."""
MAX_CONTENT = 32 * 1024
"""Bytes of content that leave room for any template."""
OUR_FAULTS = ("M_INVALID_PARAM", "M_MISSING_PARAM")
"""What another server says of a request of ours is not to be told to a client, as if it had made it (PUT
/send_join, /invite)."""


@dataclass(frozen=True, slots=True)
class Template:
    version: RoomVersion
    prev_events: list[str]
    auth_events: list[str]
    hashes: dict[str, str]
    """The hashes that references of room versions 1 and 2 carry."""
    depth: int
    authoriser: str | None


def read_template(
    host: str, answer: JsonObject, *, room_id: str, user_id: str, membership: str, default_version: str = "1"
) -> Template:
    """Raises RemoteProtocolError for a template that isn't what we asked for."""
    version_name = answer.get("room_version", default_version)
    version = ROOM_VERSIONS.get(version_name) if isinstance(version_name, str) else None
    if version is None:
        raise RemoteProtocolError(host, "the room's version is not one that we know")
    event = answer.get("event")
    if not isinstance(event, dict):
        raise RemoteProtocolError(host, "there is no event in the template")
    content = event.get("content")
    if (
        event.get("type") != "m.room.member"
        or event.get("room_id") != room_id
        or event.get("sender") != user_id
        or event.get("state_key") != user_id
        or not isinstance(content, dict)
        or content.get("membership") != membership
    ):
        raise RemoteProtocolError(host, "the template is for another event than we asked for")
    prev_events, hashes = _references(host, event.get("prev_events"), version, MAX_PREV_EVENTS)
    auth_events, more = _references(host, event.get("auth_events"), version, MAX_AUTH_EVENTS)
    depth = event.get("depth", 1)
    authoriser = content.get("join_authorised_via_users_server")
    if authoriser is not None and not is_user_id(authoriser):
        raise RemoteProtocolError(host, "the authorising user of the template is no user id")
    return Template(
        version,
        prev_events,
        auth_events,
        hashes | more,
        depth if type(depth) is int and 0 <= depth <= 2**53 - 1 else 2**53 - 1,
        authoriser,
    )


def _references(
    host: str, value: object, version: RoomVersion, limit: int
) -> tuple[list[str], dict[str, str]]:
    event_ids: list[str] = []
    hashes: dict[str, str] = {}
    if not isinstance(value, list) or len(value) > limit:
        raise RemoteProtocolError(host, "the template's references are not a short list")
    for item in value:
        if version.event_format == 1:
            if not (isinstance(item, list) and len(item) == 2 and isinstance(item[1], dict)):
                raise RemoteProtocolError(host, "the template's references are malformed")
            # Synapse leaves the hash out for some auth events. Nobody checks these hashes.
            event_id, digest = item[0], item[1].get("sha256", "")
            if not isinstance(digest, str) or not fits(digest):
                raise RemoteProtocolError(host, "a reference in the template has a malformed hash")
        else:
            event_id, digest = item, ""
        if not is_event_id(event_id):
            raise RemoteProtocolError(host, "a reference in the template is no event id")
        event_ids.append(event_id)
        hashes[event_id] = digest
    return event_ids, hashes


def own_member_event(
    parts: Parts, host: str, template: Template, room_id: str, user_id: str, content: JsonObject
) -> Event:
    """Our event, signed, from what may be taken of the template. If it can't be built, that is the fault of
    the template (RemoteProtocolError), or our own user's, whose content is too large (MatrixError).
    """
    try:
        return build_event(
            version=template.version,
            room_id=room_id,
            type="m.room.member",
            sender=user_id,
            state_key=user_id,
            content=content,
            depth=template.depth,
            prev_events=template.prev_events,
            auth_events=template.auth_events,
            origin_server_ts=parts.time_to_sign(),
            server_name=parts.our_name,
            key=parts.signing_key,
            prev_hashes=template.hashes if template.version.event_format == 1 else None,
            random_id=parts.runtime.random.token_urlsafe(18) if template.version.event_format == 1 else None,
        )
    except EventError as error:
        if len(canonical.dumps(content)) > MAX_CONTENT:
            raise too_large(f"The membership event can't be built: {error}") from error
        raise RemoteProtocolError(host, f"the template does not make an event: {error}") from error


def with_signature_of(event: Event, host: str, answer: JsonObject) -> Event:
    """Our event with the signature that another server put on it. ValueError if there is none; whether it is
    right is another question. Nothing else is taken from the answer.
    """
    signatures = answer.get("signatures")
    of_host = signatures.get(host) if isinstance(signatures, dict) else None
    if not isinstance(of_host, dict) or not all(isinstance(text, str) for text in of_host.values()):
        raise ValueError(f"{host} did not sign the event")
    return event.with_signatures({host: of_host})


async def countersigned(parts: Parts, host: str, event: Event, returned: JsonObject | None) -> Event:
    """Our join with the signature of the server that vouches for us, where one is needed. Raises
    RemoteProtocolError.
    """
    authoriser = event.content.get("join_authorised_via_users_server")
    if authoriser is None:
        return event
    try:
        merged = with_signature_of(event, domain_of(authoriser), returned or {})
        return await admit_one(
            merged.json,
            event.version,
            event.room_id,
            Source.COUNTERSIGNED,
            keys=parts.keys,
            runtime=parts.runtime,
        )
    except (ValueError, MatrixError) as error:
        raise RemoteProtocolError(host, f"our join is not rightly countersigned: {error}") from error


def failure(errors: Sequence[FederationError], what: str) -> MatrixError:
    """What the client is told when no server let us: the clearest refusal, or that there was none."""
    # "I can't tell" says less than "no".
    unsure = ("M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN", "M_NOT_FOUND", "M_UNRECOGNIZED")
    for error in sorted(
        errors, key=lambda error: isinstance(error, RemoteRefused) and error.errcode in unsure
    ):
        if (
            isinstance(error, RemoteRefused)
            and error.status in (400, 403, 404)
            and error.errcode not in OUR_FAULTS
        ):
            extra = {}
            if error.errcode == "M_INCOMPATIBLE_ROOM_VERSION" and isinstance(
                error.body.get("room_version"), str
            ):
                extra["room_version"] = error.body["room_version"]
            return MatrixError(error.status, error.errcode, error.error or f"{what} was refused.", **extra)
    tried = "; ".join(str(error) for error in errors) or "there is no server to ask"
    return MatrixError(502, "M_UNKNOWN", f"{what} failed: {tried}"[:1000])


def candidates(parts: Parts, *lists: Sequence[str]) -> list[str]:
    """Servers to try, in order, without repetition and without ourselves."""
    merged = dict.fromkeys(host for hosts in lists for host in hosts if host != parts.our_name)
    return list(merged)[:MAX_CANDIDATES]
