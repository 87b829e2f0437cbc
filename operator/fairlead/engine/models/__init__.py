"""Models as the gate calls them: one request, one Outcome. A failure is an Outcome too, never an exception.

Model calls count as Read: a failed one may simply be made again.
"""

from __future__ import annotations

import time
from dataclasses import replace

from fairlead.api.canonical import canonical_json
from fairlead.api.model import Model
from fairlead.api.reasons import ErrorClass
from fairlead.engine.credentials import destination
from fairlead.engine.dialer import Dialer, DialError, Reached, TooLarge
from fairlead.engine.models import openai
from fairlead.engine.outcomes import failed, refused, retry_after_ms
from fairlead.engine.seams import Resources
from fairlead.errors import CredentialMissing, CredentialPending, EgressDenied, StepError
from fairlead.flow.calls import Call, CallKind, Outcome

MAX_ANSWER_BYTES = 10 * 1024 * 1024
_CLASS_OF_STATUS = {
    408: ErrorClass.TIMEOUT,
    429: ErrorClass.RATE_LIMITED,
    504: ErrorClass.TIMEOUT,
}


class ModelCaller:
    """Calls models over the process's dialer."""

    def __init__(self, dialer: Dialer, resources: Resources) -> None:
        self._dialer = dialer
        self._resources = resources

    async def call(self, name: str, model: Model, call: Call, timeout_seconds: float) -> Outcome:
        """Send a Chat or Embed call and return what came of it.

        Args:
            name: the Model's name.
            model: the Model.
            call: a call of kind Chat or Embed.
            timeout_seconds: for the whole exchange.
        """
        try:
            to = destination(self._resources, model)
        except (EgressDenied, CredentialMissing, CredentialPending) as error:
            return refused(error)
        path, body = openai.request(call, model)
        headers = {"Content-Type": "application/json", **to.headers}
        started = time.perf_counter()
        try:
            async with self._dialer.exchange(
                "POST",
                to.url / path,
                private=to.private,
                headers=headers,
                body=body,
                timeout_seconds=timeout_seconds,
            ) as answer:
                content = await answer.read(MAX_ANSWER_BYTES)
        except EgressDenied as error:
            return refused(error)
        except TooLarge as error:
            lost = failed(ErrorClass.MODEL_ERROR, f"Model {name}: {error}", reason="TooLarge", started=started)
            return replace(lost, metered=False)
        except DialError as error:
            lost = failed(_class_of(error), f"Model {name}: {error}", started=started)
            return replace(lost, metered=error.reached is Reached.NOTHING)
        if answer.status != 200:
            error_class = _class_of_status(answer.status)
            message = f"Model {name} answered {answer.status}{openai.error_code(content)}"
            refused_by = failed(error_class, message, started=started, after_ms=retry_after_ms(answer))
            return replace(refused_by, metered=error_class is not ErrorClass.TIMEOUT)  # others ask nothing for it
        read = openai.read_chat if call.kind is CallKind.CHAT else openai.read_embeddings
        duration_ms = int((time.perf_counter() - started) * 1000)
        try:
            outcome = read(content, call, duration_ms)
            if len(canonical_json(outcome.result)) > MAX_ANSWER_BYTES:  # as `1e15` is longer when it is written out
                raise StepError(ErrorClass.MODEL_ERROR, "the answer is too large when written out", reason="TooLarge")
            return outcome
        except StepError as error:
            unusable = failed(error.error_class, f"Model {name}: {error}", reason=error.reason, started=started)
            return openai.metered(unusable, content)


def _class_of(error: DialError) -> ErrorClass:
    if error.timed_out:
        return ErrorClass.TIMEOUT
    return ErrorClass.MODEL_ERROR if error.reached is Reached.ANSWERED else ErrorClass.UNAVAILABLE


def _class_of_status(status: int) -> ErrorClass:
    if status in _CLASS_OF_STATUS:
        return _CLASS_OF_STATUS[status]
    return ErrorClass.UNAVAILABLE if status >= 500 else ErrorClass.MODEL_ERROR


__all__ = ["ModelCaller"]
