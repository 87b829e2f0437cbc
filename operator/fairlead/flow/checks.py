"""The static checks of a Workflow: what can be known to be wrong before anything runs, and what would be right.

The operator shows the findings in `Ready=False`, `fairlead lint` prints them, the engine refuses what has any.
The rules that the API server checks by CEL are checked here too, so that a file is judged the same without a cluster.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.api.meta import ApiModel, cel_name
from fairlead.api.reasons import ReadyReason
from fairlead.api.workflow import NEEDS_ONLY_IN_A_GRAPH, Block, Judge, Limits, OutputContract, Step, WorkflowSpec
from fairlead.flow.checks_times import time_problems
from fairlead.flow.checks_triggers import trigger_problems
from fairlead.flow.checks_ways import Specs, endless_problems, way_problems
from fairlead.flow.children import child_workflows
from fairlead.flow.expressions import ExpressionError, compile_expression, evaluate_bool
from fairlead.flow.literals import misfits
from fairlead.flow.schema import check_schema
from fairlead.flow.shapes import Shape, did_you_mean, items_of, types_of
from fairlead.flow.sites import BlockCall, Site, block_calls, final_call, offers, sites_of, tool_calls
from fairlead.flow.syntax import MAX_ITEMS
from fairlead.flow.template import expressions_in, whole_segment
from fairlead.flow.visibility import Place, Reader, before_the_run, places


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: the field path, what would be right, and a ReadyReason."""

    path: str
    message: str
    reason: str = ReadyReason.INVALID_SPEC.value

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


InputSchemas = Mapping[str, Mapping[str, Any] | None]
"""The input schema of each Workflow that exists, or of each function of a Tool; None for one that takes anything."""


def check_workflow(
    spec: WorkflowSpec,
    *,
    models: Container[str] | None,
    tools: Mapping[str, InputSchemas] | None,
    embedders: Container[str] | None = None,
    workflows: InputSchemas | None = None,
    specs: Specs = lambda name: None,
    name: str = "",
) -> list[Finding]:
    """Return everything that is known to be wrong, in the order of the checks; empty when it can run.

    Args:
        spec: the definition.
        models: the names of the Models that exist; None when that is not known.
        tools: the functions of each Tool that exists; None when that is not known.
        embedders: the names of the Models that make embeddings and do not chat; None when that is not known.
        workflows: the input schema of each Workflow that exists; None when that is not known.
        specs: the definitions of other Workflows, as far as they are known.
        name: the Workflow's own.
    """
    blocks = {block.name: block for block in spec.blocks}
    order, calls = _call_order(spec, blocks)
    found = [*_rules(spec, "spec"), *_names(spec), *calls]
    for place in places(spec, order):
        found += _order(place)
        for index, step, scope in place.scopes():
            path, items = f"{place.path}.steps[{index}]", scope.items(step, blocks)
            found += [Finding(*problem) for problem in way_problems(step, path)]
            found += _for_each(step, path, items)
            found += _references(step, path, spec, models, tools)
            found += _speaking(step, path, models, embedders or ()) if embedders is not None else []
            found += _children(step, path, spec.limits or Limits(), workflows)
            for site in sites_of(step, path, blocks, items_of(items)):
                found += _site(site, Reader(spec, place, scope.adding(site.adds), site.later))
        output = Site(f"{place.path}.output", place.body.output)
        found += _site(output, Reader(spec, place, place.after()))
    if spec.concurrency is not None:
        found += _site(Site("spec.concurrency.key", spec.concurrency.key), before_the_run(spec))
    for problems in (time_problems(spec, order), trigger_problems(spec), endless_problems(spec, name, specs)):
        found += [Finding(*problem) for problem in problems]
    found += _schemas(spec)
    if spec.defaults is not None and spec.defaults.model is not None:
        found += _model("spec.defaults.model", spec.defaults.model, models)
        found += _chats("spec.defaults.model", spec.defaults.model, embedders or ())
    return list(dict.fromkeys(found))


# Names and structure.


def _rules(model: ApiModel, path: str) -> Iterator[Finding]:
    """Check what the API server checks: the CEL rules that stand beside the fields. `_order` is more exact on needs."""
    written = outline(model.to_yaml_dict()) if type(model).cel else {}
    for rule in type(model).cel:
        if rule is not NEEDS_ONLY_IN_A_GRAPH and "oldSelf" not in rule.rule and not _holds(rule.rule, written):
            yield Finding(f"{path}{rule.field_path or ''}", rule.message)
    for name, field in type(model).model_fields.items():
        value, here = getattr(model, name), f"{path}.{field.alias or name}"
        if isinstance(value, ApiModel):
            yield from _rules(value, here)
        for index, item in enumerate(value if isinstance(value, list) else []):
            if isinstance(item, ApiModel):
                yield from _rules(item, f"{here}[{index}]")


def outline(value: Any, levels: int = 4) -> Any:
    """Return what the rules look at - names, enums, numbers, presence - without content that CEL could not take."""
    match value:
        case Mapping() if levels:
            return {cel_name(key): outline(item, levels - 1) for key, item in value.items()}
        case list() if levels:
            return [outline(item, levels - 1) for item in value[:MAX_ITEMS]]
        case str():
            return value if value.isprintable() else ""
        case int():
            return value
    return True


def _holds(rule: str, written: Mapping[str, Any]) -> bool:
    try:
        return evaluate_bool(rule, {"self": written})
    except ExpressionError:  # what cannot be judged is not right
        return False


def _names(spec: WorkflowSpec) -> Iterator[Finding]:
    yield from _duplicates("spec.steps", spec.steps)
    yield from _duplicates("spec.blocks", spec.blocks)
    for path, step in _steps(spec):
        if step.route is not None:
            yield from _duplicates(f"{path}.route.choices", step.route.choices)
        branches = step.parallel.blocks if step.parallel is not None else []
        for index, branch in enumerate(branches):
            if branch in branches[:index]:
                yield Finding(f"{path}.parallel.blocks[{index}]", f"'{branch}' is in the list already")
    for index, block in enumerate(spec.blocks):
        yield from _duplicates(f"spec.blocks[{index}].steps", block.steps)


def _duplicates(path: str, items: Sequence[Any]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if item.name in first:
            yield Finding(f"{path}[{index}].name", f"'{item.name}' is also the name of {path}[{first[item.name]}]")
        first.setdefault(item.name, index)


def _steps(spec: WorkflowSpec) -> Iterator[tuple[str, Step]]:
    for index, step in enumerate(spec.steps):
        yield f"spec.steps[{index}]", step
    for number, block in enumerate(spec.blocks):
        for index, step in enumerate(block.steps):
            yield f"spec.blocks[{number}].steps[{index}]", step


def _order(place: Place) -> Iterator[Finding]:
    """Check `needs` and `join` of one list."""
    steps = place.body.steps
    names = [step.name for step in steps]
    for index, step in enumerate(steps):
        path = f"{place.path}.steps[{index}]"
        if place.body.order == "Sequence":
            for field, value in (("needs", step.needs), ("join", step.join)):
                if value is not None:
                    yield Finding(f"{path}.{field}", f"a Sequence has no {field}; set order: Graph beside steps")
            continue
        for number, need in enumerate(step.needs or []):
            if need not in names:
                others = [name for name in names if name != step.name]
                hint = did_you_mean(need, others, "the list has")
                yield Finding(f"{path}.needs[{number}]", f"there is no step '{need}' in this list; {hint}")
    if place.body.order == "Graph":
        edges = {
            step.name: [need for need in step.needs or [] if need in names and need != step.name] for step in steps
        }
        for cycle in _cycles(edges)[1]:
            path = f"{place.path}.steps[{names.index(cycle[0])}].needs"
            yield Finding(path, f"the steps wait for each other: {' -> '.join(cycle)}")


def _call_order(spec: WorkflowSpec, blocks: Mapping[str, Block]) -> tuple[list[str], list[Finding]]:
    """Return the blocks that are used, callers first, and what is wrong with the calls."""
    found: list[Finding] = []
    edges: dict[str, list[str]] = {name: [] for name in ("", *blocks)}
    lists = [("spec", "", spec.steps)]
    lists += [(f"spec.blocks[{index}]", block.name, block.steps) for index, block in enumerate(spec.blocks)]
    calls = [(name, call) for path, name, steps in lists for call in _calls(steps, path, blocks)]
    for name, call in [*calls, *(("", call) for call in final_call(spec))]:
        if call.block in blocks:
            edges[name].append(call.block)
        else:
            hint = did_you_mean(call.block, blocks, "the blocks are")
            found.append(Finding(call.path, f"there is no block '{call.block}'; {hint}"))
    finished, cycles = _cycles(edges)
    indexes = {block.name: index for index, block in enumerate(spec.blocks)}
    for cycle in cycles:
        path = f"spec.blocks[{indexes[cycle[0]]}]"
        instead = "a loop is written with repeat or forEach"
        found.append(Finding(path, f"the block runs itself: {' -> '.join(cycle)}; {instead}"))
    used = _reachable(edges, "")
    unused = [name for name in blocks if name not in used]
    found += [Finding(f"spec.blocks[{indexes[name]}]", f"block '{name}' is never used") for name in unused]
    return [name for name in reversed(finished) if name and name in used], found


def _calls(steps: Sequence[Step], path: str, blocks: Mapping[str, Block]) -> Iterator[BlockCall]:
    for index, step in enumerate(steps):
        yield from block_calls(step, f"{path}.steps[{index}]", blocks)


def _cycles(edges: Mapping[str, Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Return the nodes, each after all that it points to, and one cycle for every edge that closes one."""
    finished: dict[str, None] = {}
    cycles: list[list[str]] = []
    for start in edges:
        trail: dict[str, Iterator[str]] = {} if start in finished else {start: iter(edges[start])}
        while trail:
            node = next(reversed(trail))
            following = next(trail[node], None)
            if following is None:
                finished[node] = None
                del trail[node]
            elif following in trail:
                nodes = list(trail)
                cycles.append([*nodes[nodes.index(following) :], following])
            elif following not in finished:
                trail[following] = iter(edges[following])
    return list(finished), cycles


def _reachable(edges: Mapping[str, Iterable[str]], start: str) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        further = [node for node in edges[waiting.pop()] if node not in found]
        found.update(further)
        waiting += further
    return found


def _for_each(step: Step, path: str, items: Shape) -> Iterator[Finding]:
    if step.for_each is None:
        return
    types = types_of(items)
    if (types and "array" not in types) or not isinstance(step.for_each.items, str | list):
        found = f"; this is of type {' or '.join(types)}" if types else ""
        yield Finding(f"{path}.forEach.items", f"items must be a list, or one $( ) that gives one{found}")


# Expressions.


def _site(site: Site, reader: Reader) -> Iterator[Finding]:
    for path, value in [(site.path, site.value)] if site.bare else _texts(site.path, site.value):
        try:
            wanted = "boolean" if site.bare else site.wanted if whole_segment(value) is not None else ""
            for text in [value] if site.bare else expressions_in(value):
                for problem in reader.problems(compile_expression(text), wanted):
                    yield Finding(path, problem)
        except ExpressionError as error:
            yield Finding(path, error.message)


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield path, value
        case Mapping():
            for key, item in value.items():
                yield from _texts(f"{path}.{key}", item)
        case list():
            for index, item in enumerate(value):
                yield from _texts(f"{path}[{index}]", item)


# Schemas, models and tools.


def _schemas(spec: WorkflowSpec) -> Iterator[Finding]:
    if spec.input is not None:
        yield from _schema("spec.input.schema", spec.input.schema_)
    for path, step in _steps(spec):
        for kind, contract in _contracts(step):
            yield from _schema(f"{path}.{kind}.output.schema", contract.schema_)
        if step.container is not None and step.container.output is not None:
            yield from _schema(f"{path}.container.output.schema", step.container.output.schema_)
        if step.validate_ is not None:
            yield from _schema(f"{path}.validate.schema", step.validate_.schema_)
        if step.wait is not None and step.wait.signal is not None:
            yield from _schema(f"{path}.wait.signal.schema", step.wait.signal.schema_)


def _schema(path: str, schema: Any) -> Iterator[Finding]:
    for problem in check_schema(schema) if schema is not None else []:
        yield Finding(path, problem)


def _contracts(step: Step) -> Iterator[tuple[str, OutputContract]]:
    for kind, definition in (("generate", step.generate), ("agent", step.agent)):
        if definition is not None and definition.output is not None:
            yield kind, definition.output


def _references(
    step: Step,
    path: str,
    spec: WorkflowSpec,
    models: Container[str] | None,
    tools: Mapping[str, InputSchemas] | None,
) -> Iterator[Finding]:
    default = spec.defaults.model if spec.defaults else None
    for where, name in _asked(step):
        if name is None and default is None:
            yield Finding(f"{path}.{where}", "no model is named: set it here or in spec.defaults.model")
        elif name is not None:
            yield from _model(f"{path}.{where}", name, models)
    if step.route is not None and step.route.model is not None:
        yield from _model(f"{path}.route.model", step.route.model, models)
    if step.container is not None and spec.service_account_name is None:
        message = "a container runs as the Workflow's account: set spec.serviceAccountName"
        yield Finding(f"{path}.container", message)
    for here, called in tool_calls(step, path):
        yield from _tool(here, called.tool, {".function": called.function}, tools)
        schema = (tools or {}).get(called.tool, {}).get(called.function)
        for problem in misfits(schema, called.arguments) if schema is not None else []:
            yield Finding(f"{here}.arguments", f"does not fit {called.tool}.{called.function}: {problem}")
    for number, allowed in enumerate(step.container.models if step.container is not None else []):
        yield from _model(f"{path}.container.models[{number}]", allowed, models)
    for offer in offers(step, path):
        functions = {f".functions[{number}]": name for number, name in enumerate(offer.functions or [])}
        yield from _tool(offer.path, offer.tool, functions, tools)


def _asked(step: Step) -> Iterator[tuple[str, str | None]]:
    """Yield the fields that name who writes text, each with what it names."""
    for kind, asking in (("generate", step.generate), ("agent", step.agent)):
        if asking is not None:
            yield f"{kind}.model", asking.model
    judges: list[tuple[str, Judge | None]] = [(f"{kind}.output.judge", c.judge) for kind, c in _contracts(step)]
    judges += [("validate.judge", step.validate_.judge)] if step.validate_ else []
    yield from ((f"{where}.model", judge.model) for where, judge in judges if judge is not None)


def _speaking(step: Step, path: str, models: Container[str] | None, embedders: Container[str]) -> Iterator[Finding]:
    """Find Models that cannot do what they are named for."""
    for where, name in _asked(step):
        if name is not None:
            yield from _chats(f"{path}.{where}", name, embedders)
    route = step.route
    scored = route is not None and route.min_score_percent is not None and route.model
    if scored and models is not None and scored in models and scored not in embedders:
        message = f"Model '{scored}' chats and gives no score: name one of api OpenAIEmbeddings, or leave this away"
        yield Finding(f"{path}.route.minScorePercent", message)


def _chats(path: str, name: str, embedders: Container[str]) -> Iterator[Finding]:
    if name in embedders:
        yield Finding(path, f"Model '{name}' makes embeddings and writes no text: name one of api OpenAIChat")


def _model(path: str, name: str, models: Container[str] | None) -> Iterator[Finding]:
    if models is not None and name not in models:
        yield Finding(path, f"there is no Model '{name}'{_hint(name, models)}", ReadyReason.UNKNOWN_REFERENCE.value)


def _tool(
    path: str, name: str, functions: Mapping[str, str], tools: Mapping[str, InputSchemas] | None
) -> Iterator[Finding]:
    if tools is None:
        return
    unknown = ReadyReason.UNKNOWN_REFERENCE.value
    if name not in tools:
        yield Finding(f"{path}.tool", f"there is no Tool '{name}'{_hint(name, tools)}", unknown)
        return
    for field, function in functions.items():
        if function not in tools[name]:
            hint = _hint(function, tools[name])
            yield Finding(f"{path}{field}", f"Tool '{name}' has no function '{function}'{hint}", unknown)


# Child runs.


def _children(step: Step, path: str, limits: Limits, workflows: InputSchemas | None) -> Iterator[Finding]:
    if any(child_workflows(step)) and limits.depth == 0:
        field = "workflow" if step.workflow is not None else "agent.tools"
        yield Finding(f"{path}.{field}", "no child can run: spec.limits.depth is 0; raise it")
    if step.workflow is not None:
        yield from _workflow(f"{path}.workflow.workflow", step.workflow.workflow, workflows)
        schema = (workflows or {}).get(step.workflow.workflow)
        for problem in misfits(schema, step.workflow.input) if schema is not None else []:
            yield Finding(f"{path}.workflow.input", f"does not fit Workflow '{step.workflow.workflow}': {problem}")
    for index, offered in enumerate(step.agent.tools if step.agent else []):
        if offered.workflow is not None:
            yield from _workflow(f"{path}.agent.tools[{index}].workflow", offered.workflow, workflows)
    if step.agent is not None:
        yield from _twice(f"{path}.agent", [(one.tool, one.workflow) for one in step.agent.tools])
    if step.container is not None:
        yield from _twice(f"{path}.container", [(one.tool, None) for one in step.container.tools])


def _twice(path: str, offered: Sequence[tuple[str | None, str | None]]) -> Iterator[Finding]:
    """Find a Tool or Workflow that is offered more than once."""
    first: dict[tuple[str | None, str | None], int] = {}
    for index, one in enumerate(offered):
        if (known := first.setdefault(one, index)) != index:
            yield Finding(f"{path}.tools[{index}]", f"'{one[0] or one[1]}' is offered by tools[{known}] already")


def _workflow(path: str, name: str, workflows: InputSchemas | None) -> Iterator[Finding]:
    if workflows is not None and name not in workflows:
        message = f"there is no Workflow '{name}'{_hint(name, workflows)}"
        yield Finding(path, message, ReadyReason.UNKNOWN_REFERENCE.value)


def _hint(name: str, known: Container[str]) -> str:
    """Return the nearest of the known names, or all of them, if they can be listed."""
    if not isinstance(known, Iterable):
        return ""
    return "; " + did_you_mean(name, sorted(known), "there are:")
