"""Where a call goes and with which secret: the destination of a Model or Tool, checked before the call's intent.

A Secret says itself where its value may go: the key `allowed-hosts` lists `host:port`, one a line, which means https,
or `http://host:port`; for a server that Fairlead runs `tool:<name>@<image digest>` or `model:<name>@<image digest>`.
Whoever edits a Tool's URL can therefore not carry the secret elsewhere, nor have it sent in clear text. Values stand in
a header and nowhere else, and never in a result (`scrub`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from yarl import URL

from fairlead.api.canonical import canonical_json
from fairlead.api.model import Model
from fairlead.api.reasons import TriggersReason
from fairlead.api.server import Credential, SecretKeyRef, Server
from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow
from fairlead.engine.egress import check_url, host_port
from fairlead.engine.seams import Resources
from fairlead.errors import CredentialMissing, CredentialPending, EgressDenied

ALLOWED_HOSTS = "allowed-hosts"
ALLOWED_USE = "allowed-use"
REDACTED = "[redacted]"
SHORTEST_SECRET = 8
"""Shorter values are placeholders ("none", "EMPTY") that occur in ordinary text; results keep them."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes.

    Attributes:
        url: the base URL.
        private: whether the address may be a private one.
        headers: the credential, if there is one; never shown.
    """

    url: URL
    private: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def destination(resources: Resources, target: Tool | Model) -> Destination:
    """Return where calls to a Tool or Model go, with its credential.

    Raises:
        EgressDenied: the address, or the Secret's `allowed-hosts`, forbids it.
        CredentialMissing: the Secret or its key does not exist.
        CredentialPending: the Secret is not mounted yet.
    """
    kind, name = type(target).__name__, target.metadata.name
    security = resources.engine.security
    own = resources.own(kind, name)
    url, private = check_url(
        resources.address(kind, name), own=own, allowed_private=security.allowed_private_hosts if security else ()
    )
    credential = target.spec.credential
    if credential is None:
        return Destination(url, private)
    value = _value(resources, credential)
    _check_allowed(resources, credential, _own_entry(kind, name, _server(target)) if own else _entry(url))
    header = f"{credential.scheme} {value}" if credential.scheme else value
    return Destination(url, private, {credential.header: header})


def known_secrets(resources: Resources) -> frozenset[str]:
    """Return every secret that any Tool, Model or trigger of the namespace uses and that is mounted."""
    found = set(_trigger_keys(resources))
    targets: list[Tool | Model] = [*resources.tools.values(), *resources.models.values()]
    for target in targets:
        if target.spec.credential is not None:
            try:
                found.add(_value(resources, target.spec.credential))
            except (CredentialMissing, CredentialPending):
                continue
    return frozenset(secret for secret in found if len(secret) >= SHORTEST_SECRET)


def _trigger_keys(resources: Resources) -> Iterator[str]:
    for workflow in resources.workflows.values():
        for trigger in (workflow.spec.triggers.http or ()) if workflow.spec.triggers is not None else ():
            if trigger.auth.hmac is not None:
                reference = trigger.auth.hmac.secret_ref
                with suppress(CredentialPending):
                    yield (resources.credential(reference.name, reference.key) or "").strip()


def trigger_key(resources: Resources, reference: SecretKeyRef) -> str:
    """Return the key that requests of an HTTP trigger are signed with.

    Raises:
        CredentialMissing: the Secret is not for this, or lacks the key.
        CredentialPending: the Secret is not mounted yet.
    """
    use = (resources.credential(reference.name, ALLOWED_USE) or "").strip()
    if use != "hmac":
        raise CredentialMissing(f"the key {ALLOWED_USE} of Secret {reference.name} is not hmac")
    key = (resources.credential(reference.name, reference.key) or "").strip()
    if not key:
        raise CredentialMissing(f"Secret {reference.name} has no key {reference.key}")
    return key


def triggers_ready(resources: Resources, workflow: Workflow) -> tuple[TriggersReason, str] | None:
    """Return whether a Workflow's HTTP triggers can let anybody in, and what is in the way; None without keys."""
    http = (workflow.spec.triggers.http or []) if workflow.spec.triggers is not None else []
    keyed = {trigger.name: trigger.auth.hmac.secret_ref for trigger in http if trigger.auth.hmac is not None}
    for name, reference in keyed.items():
        try:
            trigger_key(resources, reference)
        except CredentialPending:
            return TriggersReason.KEY_PENDING, f"trigger {name}: Secret {reference.name} is not mounted yet"
        except CredentialMissing as error:
            return TriggersReason.KEY_UNUSABLE, f"trigger {name}: {error}"
    return (TriggersReason.READY, "") if keyed else None


def scrub(value: Any, secrets: Collection[str]) -> Any:
    """Return a JSON value in which every secret, in texts and keys, as it is or encoded, is replaced."""
    if not secrets:
        return value
    spelled = {spelling for secret in secrets for spelling in _spellings(secret)}
    longest_first = sorted(spelled, key=len, reverse=True)  # a secret that holds another one goes as a whole
    return _scrub(value, longest_first)


@lru_cache(maxsize=1024)
def _spellings(secret: str) -> frozenset[str]:
    """Return a secret as headers, URLs and JSON write it, and in base64 and hex, also amid what else was encoded.

    A part of one, or another cipher, nobody can know.
    """
    data, escaped = secret.encode(), canonical_json(secret).decode()[1:-1]
    spelled = {secret, escaped, quote(secret, safe=""), quote(secret), data.hex(), data.hex().upper()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(data).decode()
        spelled |= {whole, whole.rstrip("="), *(_amid(encode, data, before) for before in range(3))}
    return frozenset(spelled)


def _amid(encode: Callable[[bytes], bytes], data: bytes, before: int) -> str:
    """Return the characters of base64 that are the data's alone, after so many other bytes (of a multiple of three)."""
    return encode(bytes(before) + data)[-(-before * 8 // 6) : (before + len(data)) * 8 // 6].decode()


def _scrub(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
        return value
    if isinstance(value, dict):
        return {_scrub(key, secrets): _scrub(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrub(item, secrets) for item in value]
    return value


def _value(resources: Resources, credential: Credential) -> str:
    reference = credential.secret_ref
    value = (resources.credential(reference.name, reference.key) or "").strip()
    if not value:
        raise CredentialMissing(f"Secret {reference.name} has no key {reference.key}")
    if not value.isprintable() or not value.isascii():
        raise CredentialMissing(f"key {reference.key} of Secret {reference.name} cannot stand in a header")
    return value


def _check_allowed(resources: Resources, credential: Credential, entry: str) -> None:
    secret = credential.secret_ref.name
    lines = (resources.credential(secret, ALLOWED_HOSTS) or "").splitlines()
    if entry not in {line.strip().lower().removeprefix("https://") for line in lines}:
        means = "; an entry without http:// means https" if entry.startswith("http://") else ""
        raise EgressDenied(f"the key {ALLOWED_HOSTS} of Secret {secret} does not list {entry}{means}")


def _entry(url: URL) -> str:
    return host_port(url) if url.scheme == "https" else f"{url.scheme}://{host_port(url)}"


def _server(target: Tool | Model) -> Server | None:
    return target.spec.mcp.server if isinstance(target, Tool) else target.spec.server


def _own_entry(kind: str, name: str, server: Server | None) -> str:
    digest = server.image.partition("@")[2] if server is not None else ""
    if not digest:
        raise EgressDenied(f"{kind} {name} has a credential, so its server's image must be named by digest")
    return f"{kind.lower()}:{name}@{digest.lower()}"
