# SPDX-License-Identifier: Apache-2.0
"""Pages for clients that can't do a login or a stage of authentication themselves: they open one of these in
a browser (client-server-api, "Login Fallback", "User-Interactive Authentication API", "Fallback"). And the
page that an invitation links to (`minihs user invite`).

No page needs anything from elsewhere, and the content security policy lets none in. Whatever is put into a
page is escaped; the scripts are constants.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from urllib.parse import parse_qsl

from minihs.matrix.errors import MatrixError, invalid_param, not_found
from minihs.users.interactive import DUMMY, PASSWORD, REGISTRATION_TOKEN
from minihs.web.routing import NONE, Answer, Call, Routes

routes = Routes()

MAX_FIELDS = 10

INVITATION_PAGE = "/_matrix/static/client/invitation/"

_STYLE = (
    "body{font-family:sans-serif;max-width:24em;margin:3em auto;padding:0 1em}"
    "label{display:block;margin:1em 0}input{width:100%;font-size:1em}#problem{color:#a00}"
)

_DONE = """
if (window.onAuthDone) {
    window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
}
"""

_LOGIN = """
const form = document.querySelector("form"), problem = document.querySelector("#problem");
form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const more = Object.fromEntries(new URLSearchParams(location.search));
    const known = {};
    for (const name of ["device_id", "initial_device_display_name"]) {
        if (more[name] !== undefined) known[name] = more[name];
    }
    if (more.refresh_token === "true") known.refresh_token = true;
    const answer = await fetch("/_matrix/client/v3/login", {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({
            ...known,
            type: "m.login.password",
            identifier: {type: "m.id.user", user: form.user.value},
            password: form.password.value,
        }),
    });
    const body = await answer.json();
    if (!answer.ok) {
        problem.textContent = body.error;
        return;
    }
    problem.textContent = "";
    form.replaceWith("You are logged in. You may close this window.");
    if (window.matrixLogin && window.matrixLogin.onLogin) {
        window.matrixLogin.onLogin(body);
    } else if (window.onLogin) {
        window.onLogin(body);
    }
});
"""

_INVITATION = """
const form = document.querySelector("form"), problem = document.querySelector("#problem");
form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.password.value !== form.again.value) {
        problem.textContent = "The two passwords differ.";
        return;
    }
    const answer = await fetch("/_matrix/client/v3/register", {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({
            username: form.user.value,
            password: form.password.value,
            inhibit_login: true,
            auth: {type: "m.login.registration_token", token: location.hash.slice(1)},
        }),
    });
    const body = await answer.json();
    if (!answer.ok) {
        problem.textContent = body.error || "This link is not good.";
        return;
    }
    form.replaceWith("Your account is " + body.user_id + ". Log in to it with a Matrix app.");
});
"""

_LOGIN_FIELDS = (
    '<label>User name<input name="user" autocomplete="username" required></label>'
    '<label>Password<input name="password" type="password" autocomplete="current-password" required></label>'
)

_INVITATION_FIELDS = (
    '<label>User name<input name="user" autocomplete="username" autocapitalize="none" required></label>'
    '<label>Password<input name="password" type="password" autocomplete="new-password" required></label>'
    '<label>Once more<input name="again" type="password" autocomplete="new-password" required></label>'
)

_FORMS = {
    DUMMY: "<p>Nothing is asked of you here.</p>",
    PASSWORD: _LOGIN_FIELDS,
    REGISTRATION_TOKEN: '<label>The token that you were given<input name="token" required></label>',
}


@routes.get("/_matrix/static/client/login/", also=["/_matrix/static/client/login"], auth=NONE, limit="lookup")
async def login_page(_: Call) -> Answer:
    form = f"<form>{_LOGIN_FIELDS}<p id=problem></p><button>Log in</button></form>"
    return _page("Log in", form, script=_LOGIN)


@routes.get(INVITATION_PAGE, also=[INVITATION_PAGE.rstrip("/")], auth=NONE, limit="lookup")
async def invitation_page(_: Call) -> Answer:
    form = f"<form>{_INVITATION_FIELDS}<p id=problem></p><button>Make my account</button></form>"
    return _page("Welcome", form, script=_INVITATION)


@routes.get("/_matrix/client/v3/auth/{stage}/fallback/web", auth=NONE, limit="lookup")
async def stage_page(call: Call, stage: str) -> Answer:
    session = call.query.require("session")
    if stage not in _FORMS or not call.services.users.interactions.knows(session, stage):
        raise not_found("There is no such session, or it has no such stage.")
    return _stage_form(stage, session, "")


@routes.post("/_matrix/client/v3/auth/{stage}/fallback/web", auth=NONE, limit="login")
async def pass_stage(call: Call, stage: str) -> Answer:
    fields = _form_fields(await call.body())
    session = fields.get("session") or call.query.require("session")
    if stage not in _FORMS:
        raise not_found("There is no page for this stage.")
    auth = {"type": stage, "session": session, **_answers(stage, fields)}
    try:
        await call.services.users.interactions.pass_in_browser(session, stage, auth)
    except MatrixError as refusal:
        if refusal.status in (404, 429):
            raise
        return _stage_form(stage, session, refusal.message)
    return _page("Thank you", "<p>You may close this window and go on in the app.</p>", script=_DONE)


def _answers(stage: str, fields: dict[str, str]) -> dict[str, object]:
    if stage == PASSWORD:
        user = {"type": "m.id.user", "user": fields.get("user", "")}
        return {"identifier": user, "password": fields.get("password", "")}
    return {"token": fields.get("token", "")} if stage == REGISTRATION_TOKEN else {}


def _form_fields(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise invalid_param("That is no form.") from error


def _stage_form(stage: str, session: str, problem: str) -> Answer:
    form = (
        f'<form method="post">{_FORMS[stage]}<input type="hidden" name="session" value="{escape(session)}">'
        f"<p id=problem>{escape(problem)}</p><button>Go on</button></form>"
    )
    return _page("Authentication", form)


def _page(title: str, body: str, *, script: str = "") -> Answer:
    """An HTML page whose one script, if any, is allowed by its hash."""
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"'sha256-{hashed}'" if script else "'none'"
    styles = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    text = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{body}"
        + (f"<script>{script}</script>" if script else "")
        + "</body></html>"
    )
    return Answer(
        body=text.encode(),
        headers={
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{styles}'; "
            f"script-src {scripts}; connect-src 'self'; form-action 'self'; base-uri 'none'",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )
