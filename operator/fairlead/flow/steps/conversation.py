"""What an agent's model is told: the task, and the turns so far, as far as its Model has room for them. Pure.

Where there is no room left, old results go first, then whole turns, until half of the room is free: so what a server
has cached of a conversation stays of use for some turns. The task and the last turn always stay. It depends on nothing
but the turns and the room, both of which are recorded: after a restart the same is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.canonical import canonical_json
from fairlead.api.model import Model, ModelLimits

BYTES_PER_TOKEN = 3
"""English has more to a token, most other languages and code about as many."""

LEFT_OUT = "(left out: there is no room for this result any more)"
TURNS_LEFT_OUT = "(earlier turns are left out: there is no room for them any more)"

Message = dict[str, Any]


def room_for(model: Model | None, functions: Sequence[Mapping[str, Any]]) -> int | None:
    """Return how many bytes of messages a Model has room for beside its functions and its answer; None: no bound."""
    limits = (model.spec.limits if model is not None else None) or ModelLimits()
    if limits.context_tokens is None:
        return None
    tokens = max(0, limits.context_tokens - limits.max_output_tokens)
    return max(0, tokens * BYTES_PER_TOKEN - len(canonical_json(list(functions))))


class Conversation:
    """Messages that grow turn by turn."""

    def __init__(self, task: Sequence[Message], room: int | None) -> None:
        """Begin with the task. `room` is in bytes of JSON; None for no bound."""
        self._task = list(task)
        self._room = room
        self._turns: list[list[Message]] = []
        self._sizes: list[int] = []
        self._own = _size(self._task)
        self._dropped = False

    @property
    def messages(self) -> list[Message]:
        """Return what the model is told next."""
        note = [{"role": "user", "content": TURNS_LEFT_OUT}] if self._dropped else []
        return [*self._task, *note, *(message for turn in self._turns for message in turn)]

    def add(self, said: Message, results: Sequence[Message]) -> None:
        """Add what the model said, and what it is told of that."""
        self._turns.append([said, *results])
        self._sizes.append(_size(self._turns[-1]))
        if self._room is None or self._bytes <= self._room:
            return
        for position in range(len(self._turns) - 1):
            if self._bytes <= self._room // 2:
                return
            said, *told = self._turns[position]
            self._turns[position] = [said, *(_without(message) for message in told)]
            self._sizes[position] = _size(self._turns[position])
        while self._bytes > self._room // 2 and len(self._turns) > 1:
            self._dropped = True
            del self._turns[0], self._sizes[0]

    @property
    def _bytes(self) -> int:
        return self._own + sum(self._sizes)


def _without(message: Message) -> Message:
    return message | {"content": LEFT_OUT} if len(message["content"]) > len(LEFT_OUT) else message


def _size(messages: list[Message]) -> int:
    return len(canonical_json(messages))
