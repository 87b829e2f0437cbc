"""Who may do what, asked for every call: reviews by the API server, or by the given Policies in local mode.

The gate asks an Authorizer (seams.py). A cache stands between it and the API server: allow and deny live for ten
seconds, so that a revoked grant stops calls soon; an error is never remembered. No answer is Unavailable, which is
neither allow nor deny.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from fairlead.api import GROUP
from fairlead.api.policy import Policy
from fairlead.errors import AuthorizerUnavailable, KubeError
from fairlead.policy.decision import Authorization
from fairlead.policy.grants import granted
from fairlead.policy.permission import Permission

CACHE_SECONDS = 10.0
CACHE_ENTRIES = 10_000
REVIEW_TIMEOUT_SECONDS = 5.0
REASON_CHARACTERS = 512
"""So much is kept of what an authorizer says of its answer; what stands behind a webhook may say anything."""


class Answer(NamedTuple):
    """What a review came to, and what the authorizer said of it, such as which binding allows it."""

    allowed: bool
    reason: str = ""


Review = Callable[[str, Permission], Awaitable[Answer]]
"""Tells whether an account has a permission; raises AuthorizerUnavailable when it cannot tell."""


class KubeApi(Protocol):
    """The one method of kube/client.Kube that reviews need."""

    async def request(self, method: str, path: str, *, body: Any = None) -> Any:
        """Send a request, return the parsed answer."""
        ...


class CacheCounter(Protocol):
    """Counts reviews by where their answer came from (a labelled prometheus Counter)."""

    def labels(self, result: str) -> Any:
        """Return the counter of `hit`, `miss` or `error`."""
        ...


class CachedAuthorizer:
    """Answers from reviews that are at most ten seconds old.

    The age counts from the moment a review was *sent*, so an allow never outlives a revocation by more than that.
    Callers that ask the same at the same time share one review.
    """

    def __init__(
        self,
        review: Review,
        *,
        clock: Callable[[], float] = time.monotonic,
        counter: CacheCounter | None = None,
        entries: int = CACHE_ENTRIES,
    ) -> None:
        """Take the review to cache, and a monotonic clock in seconds."""
        self._review = review
        self._clock = clock
        self._counter = counter
        self._entries = entries
        self._known: OrderedDict[tuple[str, Permission], tuple[float, Answer]] = OrderedDict()
        self._asking: dict[tuple[str, Permission], asyncio.Task[Answer]] = {}

    async def authorize(self, account: str, any_of: tuple[Permission, ...]) -> Authorization:
        """Tell whether the ServiceAccount has at least one of these. Never raises: no answer is Unavailable."""
        unavailable = because = ""
        for permission in any_of:
            try:
                answer = await self._answer(account, permission)
            except AuthorizerUnavailable as error:
                unavailable = str(error) or error.reason
                continue
            if answer.allowed:
                return Authorization("Allowed", message=answer.reason)
            because = because or answer.reason
        if unavailable:
            return Authorization("Unavailable", message=unavailable)
        return Authorization("Denied", missing=any_of[0] if any_of else None, message=because)

    async def _answer(self, account: str, permission: Permission) -> Answer:
        key = (account, permission)
        known = self._known.get(key)
        if known is not None and self._clock() - known[0] <= CACHE_SECONDS:
            self._known.move_to_end(key)
            self._count("hit")
            return known[1]
        if (task := self._asking.get(key)) is None:
            # no await between the look-up and this line: nobody else starts the same review
            task = self._asking[key] = asyncio.create_task(self._ask(key))
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)  # one caller that goes away does not take the answer from the others

    async def _ask(self, key: tuple[str, Permission]) -> Answer:
        sent = self._clock()
        try:
            answer = await self._review(*key)
        except AuthorizerUnavailable:
            self._count("error")
            raise
        finally:
            del self._asking[key]
        self._count("miss")
        self._known[key] = (sent, answer)
        self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)
        return answer

    def _count(self, result: str) -> None:
        if self._counter is not None:
            self._counter.labels(result).inc()


class KubeAuthorizer(CachedAuthorizer):
    """Asks the API server by LocalSubjectAccessReview, on behalf of a ServiceAccount of the namespace."""

    def __init__(
        self,
        kube: KubeApi,
        namespace: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        counter: CacheCounter | None = None,
    ) -> None:
        """Take the client and the namespace whose accounts are asked about."""
        super().__init__(self._ask_about_account, clock=clock, counter=counter)
        self._kube = kube
        self._namespace = namespace

    async def user_may(self, user: str, permission: Permission) -> bool:
        """Tell whether a user of the cluster, a ServiceAccount or not, has a permission in this namespace now.

        Raises:
            AuthorizerUnavailable: nobody can tell.
        """
        return (await self._ask_kube(user, permission)).allowed

    async def _ask_kube(self, user: str, permission: Permission) -> Answer:
        """Return what the API server says of a user and a permission.

        A no is asked again of an API server that is ready, and only that answer counts: one that has just started
        answers before it has read its roles and bindings, and a plain no is what it says.

        Raises:
            AuthorizerUnavailable: nobody can tell.
        """
        path = f"/apis/authorization.k8s.io/v1/namespaces/{self._namespace}/localsubjectaccessreviews"
        review = subject_access_review(self._namespace, user, permission)
        try:
            async with asyncio.timeout(REVIEW_TIMEOUT_SECONDS):
                answer = _answer_of(await self._kube.request("POST", path, body=review))
                if answer.allowed:
                    return answer
                await self._kube.request("GET", "/readyz")
                return _answer_of(await self._kube.request("POST", path, body=review))
        except (KubeError, TimeoutError, OSError) as error:
            raise AuthorizerUnavailable(f"the API server did not review {permission.resource}") from error

    async def _ask_about_account(self, account: str, permission: Permission) -> Answer:
        return await self._ask_kube(f"system:serviceaccount:{self._namespace}:{account}", permission)


class GrantAuthorizer:
    """Local mode: the given Policies are the whole truth. They are read anew for each question."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        """Take the Policies by name; the mapping may change while this lives."""
        self._policies = policies

    async def authorize(self, account: str, any_of: tuple[Permission, ...]) -> Authorization:
        """Tell whether a Policy grants the account at least one of these."""
        for policy in self._policies.values():
            if any(granted([policy], account, permission) for permission in any_of):
                return Authorization("Allowed", message=f"granted by Policy {policy.metadata.name}")
        return Authorization("Denied", missing=any_of[0] if any_of else None)


def subject_access_review(namespace: str, user: str, permission: Permission) -> dict[str, Any]:
    """Return the LocalSubjectAccessReview that asks whether a user has the permission in a namespace."""
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "LocalSubjectAccessReview",
        "metadata": {"namespace": namespace},
        "spec": {
            "user": user,
            "groups": _groups(user),
            "resourceAttributes": {
                "namespace": namespace,
                "group": GROUP,
                "resource": permission.resource,
                "name": permission.name,
                "verb": permission.verb,
            },
        },
    }


def _groups(user: str) -> list[str]:
    """Return the groups that the API server gives to a ServiceAccount's user name."""
    prefix, _, rest = user.partition("system:serviceaccount:")
    namespace = rest.partition(":")[0] if not prefix else ""
    own = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"] if namespace else []
    return [*own, "system:authenticated"]


def _answer_of(review: Any) -> Answer:
    """Read the review's status. Only an explicit `allowed: true` allows.

    The RBAC authorizer reports a dangling role in `reason`, which is a plain no; `evaluationError` means that an
    authorizer failed, so that nobody knows.
    """
    status = review.get("status") if isinstance(review, dict) else None
    if not isinstance(status, dict) or not isinstance(status.get("allowed"), bool):
        raise AuthorizerUnavailable("the API server answered without a verdict")
    allowed: bool = status["allowed"]
    if not allowed and not status.get("denied") and status.get("evaluationError"):
        raise AuthorizerUnavailable("an authorizer of the API server failed")
    reason = status.get("reason")
    said = reason[:REASON_CHARACTERS] if isinstance(reason, str) else ""
    return Answer(allowed and not status.get("denied"), said)


def _retrieve(task: asyncio.Task[Answer]) -> None:
    """Look at the task's exception, so that one nobody waits for any more is not reported as lost."""
    if not task.cancelled():
        task.exception()
