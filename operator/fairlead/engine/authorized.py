"""Could a Workflow's account ever run it? (check C2) Early news for people, and what a run's acceptance waits for.

The answer that counts is the gate's, for every call. This one asks beforehand for every permission that the Workflow
names: when a Workflow, Tool or Policy changes, every 30 s, and every 5 s while a run waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from fairlead.api.tool import Tool
from fairlead.api.workflow import OutputContract, Step, Workflow, WorkflowSpec
from fairlead.engine.beginning import NO_ACCOUNT
from fairlead.engine.seams import Authorizer, Resources
from fairlead.flow.children import child_workflows
from fairlead.flow.sites import offers, tool_calls
from fairlead.policy.decision import Authorization
from fairlead.policy.images import image_granted, images_of, not_granted
from fairlead.policy.permission import Permission, function_permission, model_permission, workflow_permission

RECHECK_SECONDS = 30.0
RECHECK_WAITED_FOR_SECONDS = 5.0
MESSAGE_PERMISSIONS = 20
"""More missing permissions than these are counted, not named."""

AnyOf = tuple[Permission, ...]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What was found out about one Workflow as it stood then."""

    workflow: Workflow
    authorization: Authorization
    checked_at: float


class Authorizations:
    """Whether each Workflow's account has everything that the Workflow names."""

    def __init__(
        self,
        resources: Resources,
        authorizer: Authorizer,
        *,
        waited_for: Callable[[str], bool],
        on_verdict: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the seams.

        Args:
            resources: what is declared.
            authorizer: who decides.
            waited_for: whether a run waits for this Workflow.
            on_verdict: called with a Workflow's name after its verdict was found, changed or not.
            clock: monotonic seconds.
        """
        self._resources = resources
        self._authorizer = authorizer
        self._waited_for = waited_for
        self._on_verdict = on_verdict
        self._clock = clock
        self._verdicts: dict[str, _Verdict] = {}
        self._stale: dict[str, None] = {}
        self._woken = asyncio.Event()

    def of(self, workflow: str) -> Authorization | None:
        """Return the verdict on a Workflow as it stands now; None while it is looked up, which this starts."""
        verdict, current = self._verdicts.get(workflow), self._resources.workflows.get(workflow)
        if verdict is not None and current is not None and verdict.workflow.spec == current.spec:
            return verdict.authorization
        self.changed([workflow])
        return None

    def changed(self, workflows: Iterable[str]) -> None:
        """Look again at these Workflows, now."""
        self._stale.update(dict.fromkeys(workflows))
        self._woken.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._woken.clear()
            for name in [*self._stale, *self._due()]:
                self._stale.pop(name, None)
                await self._check(name)
            if not self._stale:
                timer = asyncio.get_running_loop().call_later(RECHECK_WAITED_FOR_SECONDS, self._woken.set)
                await self._woken.wait()
                timer.cancel()

    def _due(self) -> Iterator[str]:
        for name in list(self._resources.workflows):
            verdict = self._verdicts.get(name)
            wait = RECHECK_WAITED_FOR_SECONDS if self._waited_for(name) else RECHECK_SECONDS
            if name not in self._stale and (verdict is None or self._clock() - verdict.checked_at >= wait):
                yield name

    async def _check(self, name: str) -> None:
        workflow = self._resources.workflows.get(name)
        if workflow is None:
            self._verdicts.pop(name, None)
            return
        account = workflow.spec.service_account_name or NO_ACCOUNT
        needed = permissions_of(workflow.spec, self._resources.tools)
        asked_at = self._clock()
        answers = await asyncio.gather(*(self._authorizer.authorize(account, any_of) for any_of in needed))
        authorization = _summary(self._resources.namespace, account, dict(zip(needed, answers, strict=True)))
        authorization = self._with_images(authorization, workflow.spec, account)
        self._verdicts[name] = _Verdict(workflow, authorization, asked_at)
        self._on_verdict(name)

    def _with_images(self, found: Authorization, spec: WorkflowSpec, account: str) -> Authorization:
        """Return the verdict with what is missing of images, which are granted otherwise."""
        policies = list(self._resources.policies.values())
        missing = [image for image in images_of(spec) if not image_granted(policies, account, image)]
        if not missing:
            return found
        told = [found.message] if found.verdict == "Denied" else []
        return Authorization(
            "Denied", found.missing, "; ".join([*told, *(not_granted(one, account) for one in missing)])
        )


def permissions_of(spec: WorkflowSpec, tools: Mapping[str, Tool]) -> list[AnyOf]:
    """Return everything that a Workflow names, in the order of its text, once each: any one of each must be granted.

    A Tool without named functions stands for every function of its contract as far as it is known.
    """
    default = spec.defaults.model if spec.defaults else None
    found: dict[AnyOf, None] = {}
    for step in [*spec.steps, *(step for block in spec.blocks for step in block.steps)]:
        found.update(dict.fromkeys(model_permission(model) for model in _models(step, default)))
        found.update(dict.fromkeys(function_permission(*function) for function in _functions(step, tools)))
        found.update(dict.fromkeys(workflow_permission(workflow) for workflow in child_workflows(step)))
    return list(found)


def _models(step: Step, default: str | None) -> Iterator[str]:
    asked: list[str | None] = []
    output: OutputContract | None = None
    if step.generate is not None:
        asked.append(step.generate.model or default)
        output = step.generate.output
    if step.agent is not None:
        asked.append(step.agent.model or default)
        output = step.agent.output
    if step.route is not None:
        # Rules alone need no model; a default stands in only where the step could not decide otherwise.
        asked.append(step.route.model)
    if step.container is not None:
        asked += step.container.models
    judges = [output.judge if output else None, step.validate_.judge if step.validate_ else None]
    asked += [judge.model or default for judge in judges if judge is not None]
    yield from (model for model in asked if model)


def _functions(step: Step, tools: Mapping[str, Tool]) -> Iterator[tuple[str, str]]:
    yield from ((called.tool, called.function) for _, called in tool_calls(step, ""))
    for offer in offers(step, ""):
        contract = tools[offer.tool].spec.functions if offer.tool in tools else []
        names = offer.functions if offer.functions is not None else [function.name for function in contract]
        yield from ((offer.tool, name) for name in names)


def _summary(namespace: str, account: str, answers: Mapping[AnyOf, Authorization]) -> Authorization:
    missing = [any_of for any_of, answer in answers.items() if answer.verdict == "Denied"]
    silent = [answer for answer in answers.values() if answer.verdict == "Unavailable"]
    if missing:
        named = [
            f"{' or '.join(f'{one.verb} on {one.resource}/{one.name}' for one in any_of)} "
            f"({any_of[0].can_i(namespace, account)})"
            for any_of in missing[:MESSAGE_PERMISSIONS]
        ]
        more = f"; and {len(missing) - MESSAGE_PERMISSIONS} more" if len(missing) > MESSAGE_PERMISSIONS else ""
        return Authorization("Denied", missing[0][0], f"{account} needs {'; '.join(named)}{more}")
    if silent:
        return Authorization("Unavailable", message=silent[0].message or "the authorizer does not answer")
    return Authorization("Allowed", message=f"{account} has all {len(answers)} permissions")
