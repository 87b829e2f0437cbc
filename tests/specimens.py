"""One valid object of each kind that uses every field, and its status, for tests that break one thing at a time."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import yaml

REMOVED = object()

_RULES = """
calls:
- {name: reads, when: "call.tool == 'tickets' && call.effect != 'Read'", then: Deny, message: only reading}
- name: oncall
  when: call.effect == 'Irreversible'
  then: RequireApproval
  approval:
    from: {users: [bob], groups: [oncall]}
    minApprovals: 1
    expiresAfterSeconds: 600
    requester: Excluded
    notify: {tool: tickets, function: search, arguments: {query: "$( approval.name )"}}
limits: [{tool: tickets, function: search, callsPerRun: 20, ratePerMinute: 10}]
budgets:
  run: {tokens: 200000, costUSD: "0.50", modelCalls: 60, toolCalls: 100}
  window: {periodSeconds: 86400, tokens: 5000000, costUSD: "20.00", runs: 500}
  unknownPrice: Deny
pins: Required
dataFlow:
  untrustedToExternal: RequireApproval
  static: Warn
  approval:
    from: {users: [bob], groups: [sec]}
    minApprovals: 1
    expiresAfterSeconds: 60
    requester: Allowed
    notify: {tool: tickets, function: search, arguments: {query: "$( approval.name )"}}
egress: {hosts: ["mcp.example.com:443"]}
containers: {runtimeClassNames: [gvisor], maxResources: {cpu: "1", memory: 1Gi}}
"""
"""What a Policy and a ClusterPolicy have alike."""

_SPECIMENS = """
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {name: triage}
spec:
  description: Answers a customer message from the handbook.
  serviceAccountName: triage
  input: {trust: Untrusted, schema: {type: object, required: [message], properties: {message: {type: string}}}}
  defaults: {model: small, timeoutSeconds: 60, retry: {limit: 3, backoffSeconds: 1, factor: 2, maxBackoffSeconds: 60}}
  limits: {timeoutSeconds: 600, steps: 50, modelCalls: 20, toolCalls: 20, tokens: 100000, costUSD: "5.00", depth: 2}
  concurrency: {maxRuns: 10, key: $( input.customer ), whenBusy: Queue}
  order: Sequence
  steps:
  - name: topic
    route:
      value: $( input.message )
      choices:
      - {name: billing, when: "input.message.contains('invoice')", description: money, examples: [charged twice]}
      - {name: technical, block: diagnose}
      model: embedder
      minScorePercent: 20
      otherwise: technical
  - name: answer
    when: steps.topic.output.choice == 'billing'
    timeoutSeconds: 30
    retry: {limit: 1, errorClasses: [Timeout, ModelError]}
    onError: {action: Continue}
    agent:
      model: small
      instructions: Use only the context.
      prompt: "Question: $( input.message )"
      tools: [{tool: tickets, functions: [search]}]
      maxTurns: 4
      parameters: {maxOutputTokens: 200, temperature: "0.2", seed: 7}
      output:
        schema: {type: object, properties: {text: {type: string}}}
        rules: [{expression: size(output.text) > 0, message: say something}]
        judge: {model: small, criteria: "Is it an answer?", minScorePercent: 50}
        revisions: 2
  - name: improve
    repeat: {until: output.score >= 80, maxIterations: 4, onExhausted: Continue}
    block: diagnose
  - name: checked
    onError: {block: diagnose}
    validate:
      value: $( steps.answer.output )
      rules: [{expression: output != null, message: say something}]
      onFailure: {action: Fail}
  - name: sum
    transform: {value: {number: 1, list: [a, $( input.message )], nothing: null}}
  - name: chat
    generate: {messages: [{role: system, content: Be brief.}, {role: user, content: Hello}]}
  - name: each
    forEach: {items: $( input.list ), as: one, maxParallel: 8, onItemFailure: Continue}
    limits: {modelCalls: 10, toolCalls: 10, tokens: 1000, costUSD: "1", steps: 50}
    parallel: {blocks: [diagnose], join: {succeeded: 1}}
  - name: other
    workflow: {workflow: researcher, input: {topic: $( input.message )}}
  - name: asked
    wait:
      signal: {name: go, schema: {type: object, properties: {ok: {type: boolean}}}}
      timeoutSeconds: 60
      onTimeout: Continue
  - name: sign
    approval:
      from: {users: [alice@example.com], groups: [oncall]}
      message: Send $( steps.answer.output.text )?
      minApprovals: 2
      expiresAfterSeconds: 60
      requester: Allowed
      onDenied: Continue
      notify: {tool: tickets, function: search, arguments: {query: "$( approval.name )"}}
  - name: report
    container:
      image: example.com/python@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
      script: {command: [python3], source: print(1)}
      env: [{name: LEVEL, value: "1"}]
      resources: {cpu: 500m, memory: 256Mi}
      runtimeClassName: gvisor
      input: {text: $( input.message )}
      output: {schema: {type: object}}
      models: [small]
      tools: [{tool: tickets, functions: [search]}]
      maxCalls: 50
  output: {answer: $( steps.answer.output.text )}
  finally: diagnose
  triggers:
    schedules: [{name: nightly, cron: 0 2 * * *, timeZone: Europe/Paris, input: {message: hi}, whenMissed: RunOnce}]
    http:
    - name: incident
      auth: {hmac: {secretRef: {name: hooks, key: secret}, header: X-Hub-Signature-256, prefix: sha256=}}
      when: body.type == 'incident'
      input: {message: $( body.text )}
      dedupeKey: $( body.id )
    - name: paid
      auth: {kubernetes: {}}
      signal: {run: $( body.run ), name: paid, data: {city: $( body.city )}}
  retention: {ttlSecondsAfterFinished: 604800, succeeded: 100, failed: 100}
  blocks:
  - name: diagnose
    order: Graph
    steps:
    - {name: logs, tool: {tool: tickets, function: search, arguments: {query: $( input.message )}}}
    - {name: other, generate: {prompt: Hello}}
    - {name: both, needs: [logs, other], join: AllDone, transform: {value: done}}
    output: $( steps.both.output )
---
apiVersion: fairlead.dev/v1alpha1
kind: WorkflowRun
metadata: {name: triage-1}
spec:
  workflow: triage
  input: {message: The app crashes, more: [1, {a: b}]}
  requestedBy: alice@example.com
  desiredState: Running
  timeoutSeconds: 600
  retryFrom: {run: triage-0, step: topic}
  signals: [{name: go, data: {ok: true}, by: bob@example.com}]
  parent:
    name: plan-1
    uid: 7f0c0123-4567-89ab-cdef-0123456789ab
    path: other
    attempt: 1
    index: 0.0.0
    label: Untrusted/Internal
    limits: {timeoutSeconds: 60, steps: 5, modelCalls: 4, toolCalls: 3, tokens: 1000, costUSD: "0.5", depth: 1}
---
apiVersion: fairlead.dev/v1alpha1
kind: Tool
metadata: {name: tickets}
spec:
  description: The ticket system
  mcp: {url: "https://mcp.example.com/mcp"}
  functions:
  - {name: search, effect: Read, pin: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
  - name: create
    description: Files a ticket.
    effect: Reversible
    reach: Internal
    returns: {trust: Trusted, sensitivity: Confidential}
    idempotency: {header: Idempotency-Key}
    input: {schema: {type: object, properties: {title: {type: string}}}}
    preset: {project: SUPPORT}
  credential: {secretRef: {name: tickets, key: token}, header: Authorization, scheme: Bearer}
  limits: {timeoutSeconds: 30, maxResultBytes: 262144, concurrency: 4, ratePerMinute: 60}
---
apiVersion: fairlead.dev/v1alpha1
kind: Model
metadata: {name: small}
spec:
  server:
    api: OpenAIChat
    model: smollm2
    image: example.com/llm@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    command: [serve, --port=8080]
    env: [{name: THREADS, value: "2"}]
    port: 8080
    path: /v1
    resources: {cpu: "1", memory: 1Gi}
  limits:
    contextTokens: 128000
    maxOutputTokens: 4096
    concurrency: 2
    timeoutSeconds: 120
    requestsPerMinute: 600
    tokensPerMinute: 200000
  price: {inputUSDPerMTok: "0.15", outputUSDPerMTok: "0.60", cachedInputUSDPerMTok: "0.075"}
  capabilities: [StructuredOutput]
---
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {name: triage}
spec:
  grants:
    serviceAccounts: [triage]
    tools: [{tool: tickets, functions: [search]}, {tool: clock}]
    models: [small, embedder]
    workflows: [researcher]
    images: ["example.com/python@sha256:*"]
  appliesTo: {workflows: {matchLabels: {tier: prod}}}
  mode: Audit
  rules: RULES
---
apiVersion: fairlead.dev/v1alpha1
kind: ClusterPolicy
metadata: {name: baseline}
spec:
  namespaceSelector:
    matchLabels: {tier: prod}
    matchExpressions: [{key: team, operator: In, values: [a, b]}, {key: sandbox, operator: DoesNotExist}]
  appliesTo: {workflows: {matchLabels: {tier: prod}}}
  mode: Audit
  rules: RULES
---
apiVersion: fairlead.dev/v1alpha1
kind: Approval
metadata: {name: triage-1-0123456789abcdef}
spec:
  run: {name: triage-1, uid: 7f0c0123-4567-89ab-cdef-0123456789ab}
  workflow: triage
  serviceAccountName: triage
  requestedBy: alice@example.com
  step: answer
  attempt: 1
  index: 0.1.0
  message: may it be sent?
  call:
    {kind: Tool, target: tickets, function: create, effect: Irreversible, arguments: {}, label: Untrusted/Public}
  budgetLeft: {tokens: 1000, costUSD: "0.25", modelCalls: 3, toolCalls: 0}
  policy: triage
  rule: oncall
  digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  from: {users: [bob@example.com], groups: [oncall]}
  minApprovals: 1
  requester: Excluded
  expiresAt: "2026-01-01T01:00:00Z"
  decisions: [{by: bob@example.com, decision: Approve, reason: looks right}]
---
apiVersion: fairlead.dev/v1alpha1
kind: Engine
metadata: {name: default}
spec:
  storage: {storageClassName: standard, size: 1Gi}
  database: {secretRef: {name: journal, key: url}}
  replicas: 2
  resources: {cpu: 250m, memory: 512Mi}
  telemetry: {endpoint: "http://otel-collector:4318"}
  security: {allowedPrivateHosts: ["10.0.0.7:8080"], requireNetworkIsolation: Required, imageTags: Refused}
"""
_TEXT = _SPECIMENS.replace("RULES", json.dumps(yaml.safe_load(_RULES)))

_STATUSES = """
Workflow:
  observedGeneration: 2
  conditions: [{type: Ready, status: "True", reason: Ready, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]
  runs: {active: 1, waiting: 0, queued: 2, succeeded: 3, failed: 4}
  revision: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  nextScheduleTime: "2026-01-01T01:00:00Z"
  effectivePolicies: [{name: triage, mode: Audit}]
WorkflowRun:
  conditions:
  - {type: Accepted, status: "True", reason: Accepted, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}
  - type: Succeeded
    status: Unknown
    reason: Executing
    message: topic is running
    lastTransitionTime: "2026-01-01T00:00:00.123456Z"
    observedGeneration: 1
  workflow: {revision: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", generation: 4}
  startTime: "2026-01-01T00:00:00Z"
  completionTime: "2026-01-01T00:00:09.5Z"
  traceID: 7f0c0123456789abcdef0123456789ab
  progress: 5/6
  waitingFor: signal go; kubectl fairlead signal triage-1 go
  steps:
  - path: answer
    phase: Succeeded
    attempts: 2
    startedAt: "2026-01-01T00:00:00Z"
    finishedAt: "2026-01-01T00:00:01Z"
    spanID: 0123456789abcdef
    message: tried twice
    tokens: 812
  - {path: improve/2/logs, phase: Waiting, attempts: 0}
  - {path: refund, phase: Failed, denial: {reason: PolicyDenied, policy: ClusterPolicy/bank, rule: largeAmounts}}
  usage: {modelCalls: 4, toolCalls: 1, inputTokens: 5120, outputTokens: 644, costUSD: "0.0013", durationSeconds: 9}
  output: {answer: [1, null, {a: b}]}
  outputRef: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", bytes: 5000}
  denials: 0
  audit: {records: 14, head: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
  store: {id: store-1, sequence: 88}
Tool:
  observedGeneration: 2
  conditions: [{type: Ready, status: "False", reason: Ready, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]
  protocolVersion: "2025-11-25"
  functions:
  - name: search
    contract: Listed
    digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  - {name: drop, contract: Unlisted}
Model:
  observedGeneration: 2
  conditions: [{type: Ready, status: "True", reason: Ready, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]
Policy:
  calls: {denied: 1, wouldDeny: 2, asked: 3}
  window: {endsAt: "2026-01-02T00:00:00Z", tokens: 812, costUSD: "0.0013", runs: 2}
  observedGeneration: 2
  conditions: [{type: Ready, status: "True", reason: Ready, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]
ClusterPolicy:
  observedGeneration: 2
  conditions: [{type: Ready, status: "True", reason: Ready, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]
  namespaces: 3
  calls: {denied: 1, wouldDeny: 2, asked: 3}
  byNamespace: [{namespace: team-a, engine: u-2, denied: 1, wouldDeny: 1, asked: 0}]
Approval:
  conditions:
  - {type: Decided, status: "True", reason: Approved, message: x, lastTransitionTime: "2026-01-01T00:00:00Z"}
Engine:
  owner: fairlead-engine-1
  clusterPolicies: [{name: baseline, uid: u-1, generation: 2, spec: {rules: {pins: Required}}}]
  clusterPolicyCalls: [{name: baseline, uid: u-1, denied: 1, wouldDeny: 1, asked: 0}]
  observedGeneration: 2
  conditions: [{type: Ready, status: "True", reason: Ready, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]
"""


def status_of(kind: str) -> dict[str, Any]:
    """A valid status of this kind."""
    found: dict[str, Any] = yaml.safe_load(_STATUSES)[kind]
    return found


def specimen(kind: str) -> dict[str, Any]:
    """A valid object of this kind."""
    found: dict[str, Any] = next(obj for obj in yaml.safe_load_all(_TEXT) if obj["kind"] == kind)
    return found


def changed(obj: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with values set (or REMOVED) at dotted paths; numbers are list positions, one past the end appends."""
    result = copy.deepcopy(dict(obj))
    for path, value in changes.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
        target: Any = result
        for part in way:
            target = target[part]
        if value is REMOVED:
            del target[last]
        elif isinstance(target, list) and last == len(target):
            target.append(value)
        else:
            target[last] = value
    return result
