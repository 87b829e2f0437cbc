"""A thin client for the API server: plain dicts in and out, our own errors, a token bucket on writes.

Configuration, authentication and the HTTP session are those of `kubernetes.aio`; its typed models are not used
(they cost more than the requests). Everything else in `kube/`, the operator and the engine go through `Kube`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_incluster_config, load_kube_config

from fairlead.errors import Conflict, KubeError, NotFound, Unreachable
from fairlead.kube.pace import TokenBucket
from fairlead.kube.reading import read
from fairlead.kube.types import ResourceType

T = TypeVar("T")
Objects = list[dict[str, Any]]
APPLY = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
PAGE_SIZE = 500
GONE = 410
TOKEN_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 30.0
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Reviews are questions that happen to be POSTed: they write nothing and do not wait for the bucket.
_REVIEWS = ("/apis/authorization.k8s.io/", "/apis/authentication.k8s.io/")

_log = logging.getLogger(__name__)


class Kube:
    """One connection pool to one API server.

    `namespace` is the one of the kubeconfig context or of the pod that this process runs in.
    Every method raises `NotFound`, `Conflict`, `Unreachable` or another `KubeError`.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        namespace: str = "default",
        writes: TokenBucket | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        self.namespace = namespace
        self.may_write: Callable[[], None] = lambda: None  # raises where a write must not be made any more
        self._configuration = configuration
        # Python 3.13 wants extensions that many clusters' own CAs lack; the chain and the name are verified as ever.
        configuration.disable_strict_ssl_verification = True
        self._rest = RESTClientObject(configuration)
        self._writes = writes or TokenBucket(per_second=50, burst=100)
        self._timeout_seconds = timeout_seconds

    @classmethod
    async def connect(cls, *, context: str | None = None) -> Self:
        """Connect as the pod's ServiceAccount, else as a kubeconfig says (`KUBECONFIG` or ~/.kube/config).

        Args:
            context: a kubeconfig context; naming one means that the kubeconfig is wanted even inside a pod.

        Raises:
            kubernetes.aio.config.ConfigException: there is neither, or no such context.
        """
        configuration = Configuration()
        if context is None and (_SERVICE_ACCOUNT / "token").exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(client_configuration=configuration, try_refresh_token=False)
            hook: Any = token_reader(_SERVICE_ACCOUNT / "token")  # the library declares it as None
            configuration.refresh_api_key_hook = hook
            return cls(configuration, namespace=(_SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip())
        loader = await load_kube_config(
            config_file=os.environ.get("KUBECONFIG") or None, context=context, client_configuration=configuration
        )
        namespace = loader.current_context["context"].get("namespace")
        return cls(configuration, namespace=namespace or "default")

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()

    async def turn(self) -> None:
        """Wait for a turn to write. Who makes up what it writes only then writes what is true, `urgent`."""
        await self._writes.take()

    async def once_ready(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, and ask what is not allowed again of a server that is ready: only that answer counts.

        One that has just started answers before it has read its roles and bindings, and a plain no is what it says.
        """
        try:
            return await ask()
        except KubeError as error:
            if error.status not in (401, 403):
                raise
        try:
            await self.request("GET", "/readyz")
        except KubeError as error:
            raise Unreachable(error.status, f"the API server is not ready: {error.message}") from error
        return await ask()

    async def now_ms(self) -> int:
        """Return Unix ms by the server's clock, which gives objects and tokens their times: the Date of an answer.

        Raises:
            KubeError: it does not answer, or does not say.
        """
        timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
        response = await self._send("GET", "/version", None, {}, {}, timeout)
        response.release()
        try:
            return int(parsedate_to_datetime(response.headers["Date"]).timestamp() * 1000)
        except (KeyError, ValueError, OverflowError) as error:
            raise KubeError(0, "the API server does not say what time it is") from error

    async def get(self, rt: ResourceType, name: str, namespace: str | None = None) -> dict[str, Any]:
        """Return one object."""
        return await self._object("GET", rt.path(namespace, name))

    async def list(
        self, rt: ResourceType, namespace: str | None = None, *, label_selector: str | None = None
    ) -> Objects:
        """Return all objects of a namespace, or of all namespaces."""
        return (await self.snapshot(rt, namespace, label_selector=label_selector))[0]

    async def snapshot(
        self, rt: ResourceType, namespace: str | None = None, *, label_selector: str | None = None
    ) -> tuple[Objects, str]:
        """Return all objects, read in chunks, and the collection's resourceVersion, from which to watch.

        A snapshot that expires between two chunks (410) is read again from the start, once.
        """
        try:
            return await self._chunks(rt, namespace, label_selector)
        except KubeError as error:
            if error.status != GONE:
                raise
            return await self._chunks(rt, namespace, label_selector)

    async def create(self, rt: ResourceType, obj: Mapping[str, Any], namespace: str | None = None) -> dict[str, Any]:
        """Create an object (or ask a review) and return what the server made of it."""
        namespace = namespace or obj.get("metadata", {}).get("namespace")
        return await self._object("POST", rt.path(namespace), body=_typed(rt, obj))

    async def replace(self, rt: ResourceType, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object; with its `metadata.resourceVersion` only if nobody else wrote meanwhile (Conflict)."""
        return await self._object("PUT", _path_of(rt, obj), body=_typed(rt, obj))

    async def delete(
        self, rt: ResourceType, name: str, namespace: str | None = None, *, uid: str | None = None
    ) -> None:
        """Delete an object with its dependents in the background; with `uid` only this very one (else Conflict)."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        await self.request("DELETE", rt.path(namespace, name), body=options)

    async def apply(
        self, rt: ResourceType, obj: Mapping[str, Any], *, manager: str, force: bool = True
    ) -> dict[str, Any]:
        """Server-side apply: make the fields of `obj` so, create the object if it is missing.

        The server refuses fields that it does not know, so nothing that protects a pod vanishes in silence. (It says
        500 then, hence `Unreachable`: the message tells.)

        Args:
            rt: its type.
            obj: exactly the fields that `manager` owns; those that it no longer sends go away.
            manager: the field manager.
            force: take fields from other managers; otherwise that is a Conflict.
        """
        return await self._apply(_path_of(rt, obj), _typed(rt, obj), manager, force=force)

    async def apply_status(
        self, rt: ResourceType, obj: Mapping[str, Any], *, manager: str, urgent: bool = False
    ) -> dict[str, Any]:
        """Server-side apply to `status`. `metadata` has name, namespace and best the resourceVersion that was read.

        The server ignores a wrong uid here, but a stale resourceVersion is a Conflict. A field that the served CRD
        does not know yet fails the whole status: CRDs are upgraded first.
        """
        return await self._apply(_path_of(rt, obj, "status"), _typed(rt, obj), manager, force=True, urgent=urgent)

    async def patch(
        self,
        rt: ResourceType,
        name: str,
        namespace: str | None,
        body: Mapping[str, Any],
        *,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """JSON merge patch: null removes a field."""
        path = rt.path(namespace, name, subresource)
        return await self._object("PATCH", path, body=body, headers={"Content-Type": MERGE_PATCH})

    async def watch(
        self,
        rt: ResourceType,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        inactivity_seconds: float = 75.0,
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield watch events `{"type": ..., "object": {...}}`, bookmarks included, until the server ends the stream.

        One that cannot be read is left out, so that it is in the way of no other.

        Args:
            rt: what to watch.
            namespace: None for all namespaces.
            resource_version: where to start, from `snapshot`.
            label_selector: evaluated by the server.
            inactivity_seconds: a stream that is silent for so long is `Unreachable`.
            timeout_seconds: when the server shall end the stream.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        } | ({"labelSelector": label_selector} if label_selector else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_seconds, sock_read=inactivity_seconds)
        response = await self._send("GET", rt.path(namespace), None, {}, query, timeout)
        try:
            async for line in response.content:
                try:
                    event = read(line)
                except orjson.JSONDecodeError as error:
                    if not line.endswith(b"\n"):
                        raise  # it was cut off
                    _log.error("an event of %s cannot be read: %s", rt.plural, error)
                    continue
                yield event
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreachable(0, f"watching {rt.plural}: {type(error).__name__} {error}".rstrip()) from error
        finally:
            response.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        urgent: bool = False,
    ) -> Any:
        """Send one request and return the JSON of the answer, or its text if it is not JSON.

        Args:
            method: the HTTP method. Everything but GET waits for the token bucket.
            path: from the root, for example `/version`.
            body: JSON.
            headers: added to ours.
            query: the query parameters.
            urgent: do not wait for the bucket: for who had its `turn`, and for the Lease, which must not stand in line.
        """
        if method != "GET" and not urgent and not path.startswith(_REVIEWS):
            await self._writes.take()
            self.may_write()
        timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
        response = await self._send(method, path, body, headers or {}, query or {}, timeout)
        try:
            content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(0, f"{method} {path}: {type(error).__name__} {error}".rstrip()) from error
        if not response.content_type.endswith("json"):
            return content.decode(errors="replace")
        try:
            return read(content)
        except orjson.JSONDecodeError as error:
            raise KubeError(0, f"{method} {path}: the answer cannot be read: {error}") from error

    async def _object(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = await self.request(method, path, **options)
        if not isinstance(answer, dict):
            raise KubeError(0, f"{method} {path}: the answer is no object")
        return answer

    async def _apply(
        self, path: str, obj: Mapping[str, Any], manager: str, *, force: bool, urgent: bool = False
    ) -> dict[str, Any]:
        query = {"fieldManager": manager, "force": str(force).lower()}
        headers = {"Content-Type": APPLY}
        return await self._object("PATCH", path, body=obj, headers=headers, query=query, urgent=urgent)

    async def _chunks(self, rt: ResourceType, namespace: str | None, label_selector: str | None) -> tuple[Objects, str]:
        query = {"limit": str(PAGE_SIZE)} | ({"labelSelector": label_selector} if label_selector else {})
        items: Objects = []
        while True:
            page = await self._object("GET", rt.path(namespace), query=query)
            items += ({"apiVersion": rt.api_version, "kind": rt.kind} | item for item in page["items"])
            if not page["metadata"].get("continue"):
                return items, page["metadata"]["resourceVersion"]
            query["continue"] = page["metadata"]["continue"]

    async def _send(
        self,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send a request and return the response with its body unread; raise for an error status."""
        url = self._configuration.host.rstrip("/") + path + (f"?{urlencode(query)}" if query else "")
        all_headers = {"Accept": "application/json", **headers}
        bearer = (await self._configuration.auth_settings()).get("BearerToken")
        if bearer and bearer["value"]:
            all_headers["Authorization"] = bearer["value"]
        try:
            response: aiohttp.ClientResponse = (
                await self._rest.request(method, url, headers=all_headers, body=body, _request_timeout=timeout)
            ).response
            if response.status < 400:
                return response
            content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(0, f"{method} {path}: {type(error).__name__} {error}".rstrip()) from error
        raise self._error(response, content)

    def _error(self, response: aiohttp.ClientResponse, content: bytes) -> KubeError:
        """Turn an error answer into one of our errors; a Retry-After also slows down every later write."""
        try:
            message = str(orjson.loads(content)["message"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            message = content.decode(errors="replace")[:1024] or str(response.reason)
        status = response.status
        if status == 404:
            return NotFound(status, message)
        if status == 409:
            return Conflict(status, message)
        if status == 429 or status >= 500:
            after = response.headers.get("Retry-After", "")
            seconds = min(float(after), _LONGEST_PAUSE_SECONDS) if after.isdecimal() else None
            if seconds:
                self._writes.pause(seconds)
            return Unreachable(status, message, retry_after_seconds=seconds)
        return KubeError(status, message)


def token_reader(file: Path, *, clock: Callable[[], float] = time.monotonic) -> Callable[[Configuration], None]:
    """Return what has a configuration know the token in a file, which is another one from time to time.

    The library's own goes by the wall clock: after a jump backwards it keeps a token until after its end.
    """
    read_at = float("-inf")

    def read(configuration: Configuration) -> None:
        nonlocal read_at
        if clock() - read_at >= TOKEN_SECONDS:
            with contextlib.suppress(OSError):  # the one that is known is good for a while
                configuration.api_key["BearerToken"] = f"Bearer {file.read_text(encoding='utf-8').strip()}"
                read_at = clock()

    return read


def _typed(rt: ResourceType, obj: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": rt.api_version, "kind": rt.kind, **obj}


def _path_of(rt: ResourceType, obj: Mapping[str, Any], subresource: str | None = None) -> str:
    metadata = obj["metadata"]
    return rt.path(metadata.get("namespace"), metadata["name"], subresource)
