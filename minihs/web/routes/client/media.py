# SPDX-License-Identifier: Apache-2.0
"""Files (client-server-api, "Content repository").

The old endpoints without a login are frozen: all that is here came after the freeze, so they have nothing,
unless `media.allow_legacy` is set.
"""

from __future__ import annotations

from minihs.matrix.errors import MatrixError, missing_param, not_found, unrecognized
from minihs.media.service import DEFAULT_WAIT_MS, MAX_WAIT_MS, wanted_size
from minihs.media.thumbnails import Size
from minihs.media.uploads import Upload
from minihs.requester import Requester
from minihs.web.downloads import send_file
from minihs.web.routing import CLIENT, NONE, Answer, Call, JsonObject, Routes

routes = Routes()

V1 = "/_matrix/client/v1/media"
LEGACY = "/_matrix/media/v3"

DOWNLOAD = "/download/{server}/{media_id}"
NAMED_DOWNLOAD = DOWNLOAD + "/{filename}"
THUMBNAIL = "/thumbnail/{server}/{media_id}"

# -- uploading --


def upload_of(call: Call) -> Upload:
    check_may_upload(call.requester)
    return Upload(
        call.requester.user_id,
        call.stream(call.services.media.max_upload),
        call.headers.get("Content-Type"),
        call.query.get("filename"),
    )


def check_may_upload(requester: Requester) -> None:
    if requester.is_suspended:
        raise MatrixError(403, "M_USER_SUSPENDED", "The account is suspended: it can read, not upload.")


def mxc(call: Call, media_id: str) -> str:
    return f"mxc://{call.services.config.server_name}/{media_id}"


@routes.post(f"{LEGACY}/upload", auth=CLIENT, limit="upload")
async def upload(call: Call) -> JsonObject:
    media_id = await call.services.media.uploads.upload(upload_of(call))
    return {"content_uri": mxc(call, media_id)}


@routes.post("/_matrix/media/v1/create", auth=CLIENT, limit="upload")
async def create(call: Call) -> JsonObject:
    check_may_upload(call.requester)
    media_id, expires_ms = await call.services.media.uploads.create(call.requester.user_id)
    return {"content_uri": mxc(call, media_id), "unused_expires_at": expires_ms}


@routes.put(f"{LEGACY}/upload/{{server}}/{{media_id}}", auth=CLIENT, limit="upload")
async def upload_to(call: Call, server: str, media_id: str) -> JsonObject:
    if server != call.services.config.server_name:
        raise not_found("The media id was not created here.")
    await call.services.media.uploads.fill(media_id, upload_of(call))
    return {}


# -- downloading --


@routes.get(V1 + DOWNLOAD, also=[V1 + NAMED_DOWNLOAD], auth=CLIENT)
async def download(call: Call, server: str, media_id: str, filename: str | None = None) -> Answer:
    found = await call.services.media.download(server, media_id, timeout_ms=wait_ms(call))
    return send_file(call, found, filename=filename)


@routes.get(V1 + THUMBNAIL, auth=CLIENT)
async def thumbnail(call: Call, server: str, media_id: str) -> Answer:
    size = size_of(call)
    found = await call.services.media.thumbnail(server, media_id, size, timeout_ms=wait_ms(call))
    return send_file(call, found)


@routes.get(LEGACY + DOWNLOAD, also=[LEGACY + NAMED_DOWNLOAD], auth=NONE, limit="media")
async def legacy_download(call: Call, server: str, media_id: str, filename: str | None = None) -> Answer:
    check_legacy(call)
    found = await call.services.media.download(
        server, media_id, timeout_ms=wait_ms(call), may_fetch=call.query.get_bool("allow_remote", True)
    )
    return send_file(call, found, filename=filename)


@routes.get(LEGACY + THUMBNAIL, auth=NONE, limit="media")
async def legacy_thumbnail(call: Call, server: str, media_id: str) -> Answer:
    check_legacy(call)
    found = await call.services.media.thumbnail(
        server,
        media_id,
        size_of(call),
        timeout_ms=wait_ms(call),
        may_fetch=call.query.get_bool("allow_remote", True),
    )
    return send_file(call, found)


def check_legacy(call: Call) -> None:
    if not call.services.config.media.allow_legacy:
        raise not_found("Media are served to those who are logged in: /_matrix/client/v1/media.")


def wait_ms(call: Call) -> int:
    return call.query.get_int("timeout_ms", DEFAULT_WAIT_MS, max=MAX_WAIT_MS)


def size_of(call: Call) -> Size:
    width, height = call.query.get_int("width"), call.query.get_int("height")
    if width is None or height is None:
        raise missing_param("width and height are needed.")
    return wanted_size(width, height, call.query.get("method", "scale"))


# -- about the repository, and previews --


@routes.get(f"{V1}/config", also=[f"{LEGACY}/config"], auth=CLIENT)
async def media_config(call: Call) -> JsonObject:
    return {"m.upload.size": call.services.media.max_upload}


@routes.get(f"{V1}/preview_url", also=[f"{LEGACY}/preview_url"], auth=CLIENT, limit="lookup")
async def preview_url(call: Call) -> JsonObject:
    previews = call.services.media.previews
    if previews is None:
        raise unrecognized(404)
    return await previews.get(call.query.require("url"))
