"""The names of attributes: OpenTelemetry's GenAI conventions, and our own under `fairlead.*`.

The GenAI conventions are in development: their names stand here alone.
"""

from __future__ import annotations

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"

GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
ERROR_TYPE = "error.type"

OPERATION_CHAT = "chat"
OPERATION_EMBEDDINGS = "embeddings"
OPERATION_TOOL = "execute_tool"
OPERATION_WORKFLOW = "invoke_workflow"
OPERATION_CONTAINER = "run_container"
CONTAINER_IMAGE = "container.image.name"

RUN_UID = "fairlead.run.uid"
RUN_NAME = "fairlead.run.name"
WORKFLOW = "fairlead.workflow"
NAMESPACE = "fairlead.namespace"
REVISION = "fairlead.revision"
STEP_PATH = "fairlead.step.path"
STEP_PHASE = "fairlead.step.phase"
ATTEMPT = "fairlead.attempt"
CALL_INDEX = "fairlead.call.index"
APPROVAL = "fairlead.approval.name"
APPROVAL_DECISION = "fairlead.approval.decision"
CHILD_RUN = "fairlead.child.run.name"
REUSED_FROM = "fairlead.reused_from.run.name"
EFFECT = "fairlead.effect"
DECISION = "fairlead.decision"
DECISION_REASON = "fairlead.decision.reason"
DECISION_STAGE = "fairlead.decision.stage"
