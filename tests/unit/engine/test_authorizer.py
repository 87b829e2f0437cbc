"""Permissions: what is asked of the API server, how long an answer lives, and that no answer is neither yes nor no."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.api.policy import Policy
from fairlead.engine.authorizer import Answer, CachedAuthorizer, GrantAuthorizer, KubeAuthorizer
from fairlead.errors import AuthorizerUnavailable, KubeError, Unreachable
from fairlead.policy.decision import Authorization
from fairlead.policy.permission import Permission, function_permission, model_permission

SMALL = Permission("models", "small")
SEARCH = function_permission("tickets", "search")


class Reviews:
    """Answers reviews from `allowed`, counts them, and fails or waits as the test says."""

    def __init__(self, *allowed: tuple[str, Permission]) -> None:
        self.allowed = set(allowed)
        self.asked: list[tuple[str, Permission]] = []
        self.down = False
        self.gate: asyncio.Event | None = None
        self.now = 100.0
        self.counts: dict[str, int] = {}
        self._result = ""

    async def __call__(self, account: str, permission: Permission) -> Answer:
        self.asked.append((account, permission))
        answer = (account, permission) in self.allowed
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise AuthorizerUnavailable("no answer")
        return Answer(answer, f"{account} by binding x" if answer else "")

    def clock(self) -> float:
        return self.now

    def labels(self, result: str) -> Reviews:
        self._result = result
        return self

    def inc(self) -> None:
        self.counts[self._result] = self.counts.get(self._result, 0) + 1


def cached(reviews: Reviews, **more: Any) -> CachedAuthorizer:
    return CachedAuthorizer(reviews, clock=reviews.clock, counter=reviews, **more)


async def verdict(
    authorizer: CachedAuthorizer, account: str = "triage", any_of: tuple[Permission, ...] = (SMALL,)
) -> str:
    return (await authorizer.authorize(account, any_of)).verdict


@pytest.mark.parametrize("allowed", [True, False])
async def test_an_answer_is_used_for_ten_seconds_and_no_longer(allowed: bool) -> None:
    reviews = Reviews(*([("triage", SMALL)] if allowed else []))
    authorizer = cached(reviews)
    expected = "Allowed" if allowed else "Denied"
    for seconds, asked in ((0, 1), (9.9, 1), (0.2, 2)):
        reviews.now += seconds
        assert await verdict(authorizer) == expected and len(reviews.asked) == asked
    assert reviews.counts == {"miss": 2, "hit": 1}


@pytest.mark.requirement("A04")
async def test_a_revoked_grant_is_noticed_after_ten_seconds() -> None:
    reviews = Reviews(("triage", SMALL))
    authorizer = cached(reviews)
    assert await verdict(authorizer) == "Allowed"
    reviews.allowed.clear()
    reviews.now += 10.1
    assert await verdict(authorizer) == "Denied"


async def test_the_age_of_an_answer_counts_from_the_question() -> None:
    reviews = Reviews(("triage", SMALL))
    authorizer = cached(reviews)
    reviews.gate = asyncio.Event()
    first = asyncio.create_task(verdict(authorizer))
    while not reviews.asked:
        await asyncio.sleep(0)
    reviews.allowed.clear()
    reviews.now += 4.0
    reviews.gate.set()
    assert await first == "Allowed"
    reviews.now += 6.1
    assert await verdict(authorizer) == "Denied"


async def test_who_and_what_are_told_apart() -> None:
    reviews = Reviews(("triage", SMALL))
    authorizer = cached(reviews)
    assert await verdict(authorizer) == "Allowed"
    assert await verdict(authorizer, "other") == "Denied"
    assert await verdict(authorizer, any_of=(Permission("tools", "small"),)) == "Denied"
    assert await verdict(authorizer, any_of=(Permission("models", "small", verb="read"),)) == "Denied"


@pytest.mark.parametrize(("allowed", "expected"), [(SEARCH[0], "Allowed"), (SEARCH[1], "Allowed"), (SMALL, "Denied")])
async def test_either_permission_is_enough(allowed: Permission, expected: str) -> None:
    answer = await cached(Reviews(("triage", allowed))).authorize("triage", SEARCH)
    assert answer.verdict == expected and answer.missing == (SEARCH[0] if expected == "Denied" else None)


@pytest.mark.requirement("F14")
async def test_no_answer_is_neither_yes_nor_no_and_is_never_remembered() -> None:
    reviews = Reviews(("triage", SMALL))
    authorizer = cached(reviews)
    reviews.down = True
    assert await verdict(authorizer) == "Unavailable"
    reviews.down = False
    assert await verdict(authorizer) == "Allowed" and reviews.counts == {"error": 1, "miss": 1}


@pytest.mark.requirement("F14")
async def test_an_outage_is_bridged_by_an_allow_that_is_fresh_and_by_no_other() -> None:
    reviews = Reviews(("triage", SMALL))
    authorizer = cached(reviews)
    assert await verdict(authorizer) == "Allowed"
    reviews.down = True
    reviews.now += 9
    assert await verdict(authorizer) == "Allowed"
    reviews.now += 2
    assert await verdict(authorizer) == "Unavailable"


async def test_a_no_beside_no_answer_is_no_answer() -> None:
    async def review(account: str, permission: Permission) -> Answer:
        if permission.resource == "tools":
            raise AuthorizerUnavailable("no answer")
        return Answer(False)

    assert await verdict(CachedAuthorizer(review), any_of=SEARCH) == "Unavailable"


async def test_what_the_authorizer_says_of_its_answer_is_told_as_long_as_the_answer_holds() -> None:
    reviews = Reviews(("triage", SMALL))
    authorizer = cached(reviews)
    for _ in range(2):
        assert (await authorizer.authorize("triage", (SMALL,))).message == "triage by binding x"
    assert len(reviews.asked) == 1
    bound = 'RBAC: allowed by RoleBinding "p/team-a" of Role "p" to ServiceAccount "triage/team-a"'
    for said, told in ((bound, bound), ("x" * 5000, "x" * 512), (7, ""), (None, "")):
        kube = KubeAuthorizer(Kube({"status": {"allowed": True, "reason": said}}), "team-a")
        assert (await kube.authorize("triage", (SMALL,))).message == told
    dangling = KubeAuthorizer(Kube({"status": {"allowed": False, "reason": 'RBAC: role "x" not found'}}), "team-a")
    assert (await dangling.authorize("triage", (SMALL,))).message == 'RBAC: role "x" not found'


async def test_those_who_ask_the_same_at_once_share_one_review() -> None:
    reviews = Reviews(("triage", SMALL))
    authorizer = cached(reviews)
    reviews.gate = asyncio.Event()
    tasks = [asyncio.create_task(verdict(authorizer)) for _ in range(20)]
    while not reviews.asked:
        await asyncio.sleep(0)
    tasks[0].cancel()
    reviews.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError) and set(answers[1:]) == {"Allowed"}
    assert len(reviews.asked) == 1


async def test_only_the_answers_used_last_are_kept() -> None:
    reviews = Reviews()
    authorizer = cached(reviews, entries=2)
    for account in ("a", "b", "a", "c", "a", "b"):
        await verdict(authorizer, account)
    assert [account for account, _ in reviews.asked] == ["a", "b", "c", "b"]


class Kube:
    """An API server that answers reviews as told, the last answer again and again."""

    def __init__(self, *answers: Any, ready: bool = True) -> None:
        self.answers = list(answers)
        self.ready = ready
        self.requests: list[tuple[str, str, Any]] = []

    async def request(self, method: str, path: str, *, body: Any = None) -> Any:
        self.requests.append((method, path, body))
        if path == "/readyz":
            if not self.ready:
                raise Unreachable(500, "[-]informer-sync failed: reason withheld")
            return "ok"
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_the_api_server_is_asked_for_the_account_and_its_groups() -> None:
    kube = Kube({"status": {"allowed": True}})
    assert await verdict(KubeAuthorizer(kube, "team-a"), any_of=model_permission("small")) == "Allowed"
    [(method, path, body)] = kube.requests
    assert (method, path) == (
        "POST",
        "/apis/authorization.k8s.io/v1/namespaces/team-a/localsubjectaccessreviews",
    )
    assert body["spec"] == {
        "user": "system:serviceaccount:team-a:triage",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:team-a", "system:authenticated"],
        "resourceAttributes": {
            "namespace": "team-a",
            "group": "fairlead.dev",
            "resource": "models",
            "name": "small",
            "verb": "invoke",
        },
    }


@pytest.mark.requirement("F15")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": {"allowed": True}}, "Allowed"),
        ({"status": {"allowed": False}}, "Denied"),
        ({"status": {"allowed": False, "reason": 'RBAC: role "x" not found'}}, "Denied"),
        ({"status": {"allowed": False, "denied": True, "evaluationError": "x"}}, "Denied"),
        ({"status": {"allowed": True, "denied": True}}, "Denied"),
        ({"status": {"allowed": False, "evaluationError": "webhook timed out"}}, "Unavailable"),
        ({"status": {}}, "Unavailable"),
        ({"status": {"allowed": "true"}}, "Unavailable"),
        ({}, "Unavailable"),
        ("<html>", "Unavailable"),
        (None, "Unavailable"),
        (Unreachable(503, "down"), "Unavailable"),
        (KubeError(403, "the engine may not ask"), "Unavailable"),
        (TimeoutError(), "Unavailable"),
        (OSError(), "Unavailable"),
    ],
)
async def test_only_a_plain_yes_allows(answer: Any, expected: str) -> None:
    assert await verdict(KubeAuthorizer(Kube(answer), "team-a")) == expected


@pytest.mark.requirement("F15")
@pytest.mark.parametrize(
    ("ready", "then", "expected"), [(False, True, "Unavailable"), (True, True, "Allowed"), (True, False, "Denied")]
)
async def test_a_no_counts_only_from_an_api_server_that_is_ready(ready: bool, then: bool, expected: str) -> None:
    """One that has just started says no before it has read its roles and bindings."""
    kube = Kube({"status": {"allowed": False}}, {"status": {"allowed": then}}, ready=ready)
    assert await verdict(KubeAuthorizer(kube, "team-a")) == expected
    assert [method for method, _, _ in kube.requests] == ["POST", "GET", "POST"][: 3 if ready else 2]


async def test_in_local_mode_the_policies_are_the_whole_truth() -> None:
    def policy(*models: str) -> Policy:
        spec = {"grants": {"serviceAccounts": ["triage"], "models": list(models)}}
        return Policy.model_validate({"metadata": {"name": "p"}, "spec": spec})

    policies: dict[str, Policy] = {}
    authorizer = GrantAuthorizer(policies)
    assert (await authorizer.authorize("triage", (SMALL,))).missing == SMALL
    policies["p"] = policy("small")
    assert (await authorizer.authorize("triage", (SMALL,))) == Authorization("Allowed", None, "granted by Policy p")
    policies["p"] = policy("large")
    assert (await authorizer.authorize("triage", (SMALL,))).verdict == "Denied"
