# SPDX-License-Identifier: Apache-2.0
"""Push rules (client-server-api, "Push Rules: API")."""

from __future__ import annotations

from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

ROOT = "/_matrix/client/v3/pushrules"
KIND = ROOT + "/global/{kind}"
RULE = KIND + "/{rule_id}"


@routes.get(f"{ROOT}/", also=[ROOT], auth=CLIENT)
async def all_rules(call: Call) -> JsonObject:
    return {"global": call.services.push_rules.all(call.requester.user_id)}


@routes.get(f"{ROOT}/global/", also=[f"{ROOT}/global"], auth=CLIENT)
async def global_rules(call: Call) -> JsonObject:
    return call.services.push_rules.all(call.requester.user_id)


@routes.get(RULE, auth=CLIENT)
async def rule(call: Call, kind: str, rule_id: str) -> JsonObject:
    return call.services.push_rules.get(call.requester.user_id, kind, rule_id)


@routes.put(RULE, auth=CLIENT)
async def put_rule(call: Call, kind: str, rule_id: str) -> JsonObject:
    await call.services.push_rules.put(
        call.requester.user_id,
        kind,
        rule_id,
        await call.json(),
        before=call.query.get("before"),
        after=call.query.get("after"),
    )
    return {}


@routes.delete(RULE, auth=CLIENT)
async def delete_rule(call: Call, kind: str, rule_id: str) -> JsonObject:
    await call.services.push_rules.delete(call.requester.user_id, kind, rule_id)
    return {}


@routes.get(RULE + "/enabled", auth=CLIENT)
async def is_enabled(call: Call, kind: str, rule_id: str) -> JsonObject:
    return {"enabled": call.services.push_rules.get(call.requester.user_id, kind, rule_id)["enabled"]}


@routes.put(RULE + "/enabled", auth=CLIENT)
async def set_enabled(call: Call, kind: str, rule_id: str) -> JsonObject:
    await call.services.push_rules.set_enabled(call.requester.user_id, kind, rule_id, await call.json())
    return {}


@routes.get(RULE + "/actions", auth=CLIENT)
async def actions(call: Call, kind: str, rule_id: str) -> JsonObject:
    return {"actions": call.services.push_rules.get(call.requester.user_id, kind, rule_id)["actions"]}


@routes.put(RULE + "/actions", auth=CLIENT)
async def set_actions(call: Call, kind: str, rule_id: str) -> JsonObject:
    await call.services.push_rules.set_actions(call.requester.user_id, kind, rule_id, await call.json())
    return {}
