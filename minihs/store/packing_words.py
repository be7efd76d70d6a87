# SPDX-License-Identifier: Apache-2.0
"""The dictionary of `minihs.store.packing`: what most events have in common, rarest first (fewer bits are
spent on what is near the end). Part of the file format: it must never change.
"""

from __future__ import annotations

from base64 import b64decode

WORDS_1 = (
    '{"content":{"formatted_body":"<mx-reply><blockquote><a href=\\"https://matrix.to/#/!","event_id":"$",'
    '"third_party_invite":{"display_name":"","signed":{"mxid":"@","token":"","signatures":{""content":{'
    '"alias":"#","alt_aliases":["#"]},"content":{"allow":["*"],"allow_ip_literals":false,"deny":["*."],'
    '"type":"m.room.server_acl","type":"m.room.canonical_alias","type":"m.room.third_party_invite",'
    '"type":"m.room.tombstone","content":{"body":"This room has been replaced",'
    '"replacement_room":"!"type":"m.space.child","type":"m.space.parent","content":{"via":["matrix.org"],'
    '"suggested":true,"canonical":true}"type":"m.room.pinned_events","content":{'
    '"pinned":["$"type":"m.sticker","type":"m.call.invite","type":"m.call.candidates",'
    '"type":"m.call.hangup","type":"im.vector.modular.widgets","type":"m.room.avatar","content":{'
    '"url":"mxc://","type":"m.room.topic","content":{"topic":""type":"m.room.name","content":{"name":"",'
    '"type":"m.room.encryption","content":{"algorithm":"m.megolm.v1.aes-sha2",'
    '"rotation_period_ms":604800000,"rotation_period_msgs":100},"type":"m.room.guest_access","content":{'
    '"guest_access":"can_join"},"forbidden","type":"m.room.history_visibility","content":{'
    '"history_visibility":"shared"},"invited"},"joined"},"world_readable"},"type":"m.room.join_rules",'
    '"content":{"join_rule":"invite"},"public"},"knock"},"restricted","allow":[{"room_id":"!",'
    '"type":"m.room_membership"}]}"type":"m.room.create","content":{"creator":"@","m.federate":true,'
    '"predecessor":{"event_id":"$","room_id":"!"},"room_version":"9"},"room_version":"11"},'
    '"room_version":"12"},"room_version":"10","type":"m.space"},"type":"m.room.power_levels","content":{'
    '"ban":50,"events":{"m.room.avatar":50,"m.room.canonical_alias":50,"m.room.encryption":100,'
    '"m.room.history_visibility":100,"m.room.name":50,"m.room.power_levels":100,"m.room.server_acl":100,'
    '"m.room.tombstone":100,"m.room.topic":50,"m.space.child":50},"events_default":0,"historical":100,'
    '"invite":0,"kick":50,"notifications":{"room":50},"redact":50,"state_default":50,"users":{"@":100,'
    '"@":50},"users_default":0},"type":"m.room.message","content":{"body":"image.png","filename":"file":{'
    '"hashes":{"sha256":"","iv":"","key":{"alg":"A256CTR","ext":true,"k":"","key_ops":["encrypt",'
    '"decrypt"],"kty":"oct"},"url":"mxc://","v":"v2"},"info":{"h":,"mimetype":"image/png","image/jpeg",'
    '"video/mp4","audio/ogg","size":,"thumbnail_info":{"h":600,"mimetype":"image/jpeg","size":,"w":800},'
    '"thumbnail_url":"mxc://","w":,"xyz.amorgan.blurhash":""},"msgtype":"m.image",'
    '"url":"mxc://"msgtype":"m.file","msgtype":"m.video","msgtype":"m.audio","msgtype":"m.emote",'
    '"msgtype":"m.notice","content":{"body":"* ","m.new_content":{"body":"","m.mentions":{'
    '"user_ids":["@"]},"msgtype":"m.text"},"m.relates_to":{"event_id":"$","rel_type":"m.replace"},'
    '"format":"org.matrix.custom.html","formatted_body":"<p><a href=\\"https://</a></p>\\n<strong><em><code'
    "></li>\\n<ul>\\n<li><br />https://www.youtube.com/watch?v=https://github.com/https://en.wikipedia.org/"
    "wiki/ the and you that have for not with this but from they would what about which there their will "
    "like just know people time think thanks because some could when your work should please right here "
    'been more then good other really yeah maybe something does isn\'t don\'t it\'s I\'m ","redacts":"$",'
    '"type":"m.room.redaction","content":{"reason":"Spam"},"type":"m.reaction","content":{'
    '"m.relates_to":{"event_id":"$","key":"\U0001f44d\ufe0f","rel_type":"m.annotation"}},"content":{'
    '"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"AwgAEsAB","device_id":"","sender_key":"",'
    '"session_id":""},"m.relates_to":{"event_id":"$","is_falling_back":true,"m.in_reply_to":{'
    '"event_id":"$"},"rel_type":"m.thread"}},"type":"m.room.encrypted","content":{'
    '"avatar_url":"mxc://matrix.org/","displayname":"","is_direct":true,"membership":"leave",'
    '"reason":""membership":"ban","membership":"knock","membership":"invite",'
    '"join_authorised_via_users_server":"@"content":{"avatar_url":null,"displayname":"",'
    '"membership":"join"},"depth":,"hashes":{"sha256":""},"origin":"matrix.org","origin_server_ts":17,'
    '"prev_events":["$"],"prev_state":[],"room_id":"!:matrix.org","sender":"@:matrix.org","signatures":{'
    '"matrix.org":{"ed25519:auto":"","ed25519:a_RXGa":""}},"state_key":"@:matrix.org",'
    '"type":"m.room.member"}{"auth_events":["$","$","$"],"content":{"body":"","m.mentions":{},'
    '"m.relates_to":{"m.in_reply_to":{"event_id":"$"}},"msgtype":"m.text"},"depth":,"hashes":{'
    '"sha256":""},"origin_server_ts":17,"prev_events":["$"],"room_id":"!","sender":"@","signatures":{"":{'
    '"ed25519:":""}},"state_key":"","type":"m.room.message"}'
).encode()

TABLES_2 = b64decode(
    "N6Qw7IYwu3IvELCSdjAMwxSDIAiCIAjMaBQ2SCDhCgvIV4w5MoKCjDtB4QhVzWERGqUcWoZhSglzAAAQEhqJhElIrQ0ABKDKiUWG"
    "CAWGh4QF0hk5NpARoQEAAKAIIUAAAAACAAAAAAAUbUJBoaFhImEgIBIOwmAwMAgGBwHgD0zMAAABAAAABAAAAAgAAAA="
)
"""What zstd puts before the words of a dictionary: how frequent which bytes, lengths and distances are in
events. Made by its `ZDICT_finalizeDictionary` from these words and 4,000 events of many kinds with random
ids. As much part of the format."""
