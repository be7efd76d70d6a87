# SPDX-License-Identifier: Apache-2.0
"""Cross-signing keys and signatures: upload (client-server-api, "Cross-signing").

Every signature is checked before it is kept: clients trust that what the server shows was once valid, and a
wrong one would only be noise for them.
"""

from __future__ import annotations

from minihs.e2ee import ports
from minihs.e2ee.remote_answers import checked_query_answer
from minihs.e2ee.shapes import check_size, checked_cross_signing_key, ed25519_bytes
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param, missing_param, not_found
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import domain_of, is_user_id
from minihs.matrix.signatures import SignatureError, verify_json
from minihs.requester import Requester
from minihs.store import cross_signing, device_keys, device_lists, devices, key_signatures
from minihs.store.database import Database, Reader, Tx
from minihs.store.outbound_edus import queue_edu

MAX_SIGNED_OBJECTS = 1000
"""In one upload of signatures."""

MAX_SIGNED_BYTES = 64 * 1024


class CrossSigning:
    """The cross-signing keys of one server's users."""

    def __init__(self, db: Database, server_name: str, federation: ports.Federation | None) -> None:
        self._db = db
        self._server_name = server_name
        self._federation = federation

    def check_upload(self, requester: Requester, body: JsonObject) -> dict[str, tuple[str, JsonObject]]:
        """The keys of an upload by usage: (public key, key)."""
        user_id = requester.user_id
        keys = {}
        for usage in cross_signing.USAGES:
            key = body.get(f"{usage}_key")
            if key is not None:
                keys[usage] = checked_cross_signing_key(key, user_id, usage)
        if not keys:
            raise missing_param("There are no keys in the request.")
        master = keys["master"][0] if "master" in keys else None
        master = master or cross_signing.public_keys(self._db.read, user_id).get("master")
        if master is None:
            raise missing_param("There is no master signing key.")
        taken = set(devices.ids_of(self._db.read, user_id))
        publics = [public for public, _ in keys.values()]
        if len(set(publics)) != len(publics) or taken.intersection(publics):
            raise forbidden("A key is the same as another one, or as a device id.")
        for usage, (_, key) in keys.items():
            if usage != "master":
                check_signed_by(key, user_id, master)
        return keys

    def needs_confirmation(self, requester: Requester, keys: dict[str, tuple[str, JsonObject]]) -> bool:
        """Whether the user must confirm an upload: unless it is the first, or repeats what is there."""
        known = cross_signing.public_keys(self._db.read, requester.user_id)
        if "master" not in known:
            return False
        return any(known.get(usage) != public for usage, (public, _) in keys.items())

    async def upload(self, requester: Requester, keys: dict[str, tuple[str, JsonObject]]) -> None:
        """Keep keys that `check_upload` let pass, after what confirmation they need."""
        user_id = requester.user_id
        seen = cross_signing.public_keys(self._db.read, user_id)

        def write(tx: Tx) -> None:
            known = cross_signing.public_keys(tx, user_id)
            if known != seen and any(known.get(usage) != public for usage, (public, _) in keys.items()):
                raise forbidden("The keys were changed at the same time.")
            changed = [
                cross_signing.put(tx, user_id, usage, public, key) for usage, (public, key) in keys.items()
            ]
            if any(changed):
                self._announce(tx, user_id)

        await self._db.write(write)

    def _announce(self, tx: Tx, user_id: str) -> None:
        device_lists.record_change(tx, user_id)
        visible = cross_signing.visible(tx, user_id, None)
        content: JsonObject = {"user_id": user_id}
        content |= {f"{usage}_key": key for usage, key in visible.items()}
        for host in device_lists.hosts_of_contacts(tx, user_id):
            queue_edu(tx, host, "m.signing_key_update", content)

    async def upload_signatures(self, requester: Requester, body: JsonObject) -> JsonObject:
        """POST /keys/signatures/upload: the answer, with a failure for each object that was refused."""
        failures: JsonObject = {}
        accepted: list[tuple[str, str, dict[str, str]]] = []
        check_size(body, 2 * 1024 * 1024, "The body")
        if sum(len(objects) for objects in body.values() if isinstance(objects, dict)) > MAX_SIGNED_OBJECTS:
            raise invalid_param(f"At most {MAX_SIGNED_OBJECTS} objects can be signed at once.")
        for user_id, objects in body.items():
            if not is_user_id(user_id) or not isinstance(objects, dict):
                raise bad_json("The body must map users to keys to signed objects.")
            masters = await self._remote_master(user_id)
            for key_id, signed in objects.items():
                try:
                    signatures = self._check_signed(requester, user_id, key_id, signed, masters)
                    accepted.append((user_id, key_id, signatures))
                except MatrixError as error:
                    failures.setdefault(user_id, {})[key_id] = error.to_json()
        await self._keep_signatures(requester, accepted)
        return {"failures": failures}

    async def _keep_signatures(
        self, requester: Requester, accepted: list[tuple[str, str, dict[str, str]]]
    ) -> None:
        signer = requester.user_id

        def write(tx: Tx) -> None:
            own_devices = set(devices.ids_of(tx, signer))
            signed_users = set()
            for user_id, key_id, signatures in accepted:
                new = [
                    key_signatures.add(tx, user_id, key_id, signer, signer_key, signature)
                    for signer_key, signature in signatures.items()
                ]
                if not any(new):
                    continue
                if user_id == signer and key_id in own_devices:
                    device_lists.record_device_change(tx, user_id, key_id)
                else:
                    signed_users.add(user_id)
            if signer in signed_users:
                self._announce(tx, signer)
            device_lists.record_signed(tx, signer, signed_users - {signer})

        if accepted:
            await self._db.write(write)

    async def _remote_master(self, user_id: str) -> JsonObject | None:
        """The master key of a remote user, from its server; None for local users."""
        if domain_of(user_id) == self._server_name or self._federation is None:
            return None
        asked: dict[str, list[str]] = {user_id: []}
        try:
            answer = await self._federation.query_keys(domain_of(user_id), asked)
        except FederationError:
            return None
        found = checked_query_answer(answer, asked)["master_keys"].get(user_id)
        return found if isinstance(found, dict) else None

    def _check_signed(
        self,
        requester: Requester,
        user_id: str,
        key_id: str,
        signed: object,
        remote_master: JsonObject | None,
    ) -> dict[str, str]:
        """The signatures by the requester on one object, all of them right: signing key → signature."""
        if not isinstance(signed, dict):
            raise bad_json("What is signed must be an object.")
        check_size(signed, MAX_SIGNED_BYTES, "A signed object")
        by = signed.get("signatures")
        mine = by.get(requester.user_id) if isinstance(by, dict) else None
        if not isinstance(mine, dict) or not mine:
            raise invalid_signature("It has no signature of yours.")
        known, signers = self._signed_key(requester, user_id, key_id, remote_master)
        if without_signatures(signed) != without_signatures(known):
            raise invalid_param("This is not the key as it was uploaded.")
        for signer_key in mine:
            public = signers.get(signer_key)
            if public is None:
                raise invalid_signature(f"{signer_key[:100]} can't sign this.")
            check_signature(signed, requester.user_id, signer_key, public)
        return dict(mine)

    def _signed_key(
        self, requester: Requester, user_id: str, key_id: str, remote_master: JsonObject | None
    ) -> tuple[JsonObject, dict[str, str]]:
        """The key that is signed, and which keys of the requester may sign it: name → public key."""
        own = cross_signing.public_keys(self._db.read, requester.user_id)
        if user_id == requester.user_id:
            device = device_keys.get(self._db.read, user_id, key_id)
            if device is not None:
                return device, named(own.get("self_signing"))
            master = cross_signing.get(self._db.read, user_id).get("master")
            if master is not None and own["master"] == key_id:
                return master, device_signers(self._db.read, user_id)
            raise not_found("You have no such device or master key.")
        other = remote_master
        if domain_of(user_id) == self._server_name:
            other = cross_signing.get(self._db.read, user_id).get("master")
        if other is None or f"ed25519:{key_id}" not in other["keys"]:
            raise not_found("This user has no such master key.")
        return other, named(own.get("user_signing"))


def device_signers(db: Reader, user_id: str) -> dict[str, str]:
    """The Ed25519 keys of a user's devices."""
    signers: dict[str, str] = {}
    for device_id, keys in device_keys.visible(db, user_id, None, user_id).items():
        name = f"ed25519:{device_id}"
        if name in keys["keys"]:
            signers[name] = keys["keys"][name]
    return signers


def named(public: str | None) -> dict[str, str]:
    return {} if public is None else {f"ed25519:{public}": public}


def without_signatures(key: JsonObject) -> JsonObject:
    return {name: value for name, value in key.items() if name not in ("signatures", "unsigned")}


def check_signed_by(key: JsonObject, user_id: str, master: str) -> None:
    check_signature(key, user_id, f"ed25519:{master}", master)


def check_signature(signed: JsonObject, user_id: str, signer_key: str, public: str) -> None:
    try:
        verify_json(signed, user_id, signer_key, ed25519_bytes(public))
    except SignatureError as error:
        raise invalid_signature(f"The signature is not valid: {error}") from error


def invalid_signature(message: str) -> MatrixError:
    return MatrixError(400, "M_INVALID_SIGNATURE", message)
