"""Digests written into a YAML file as a person would: the lines of the pins change, and no other.

The file is not written anew, so that comments, order and quotes stay: the parser only says where what stands. Whether
the result says what was meant is seen by reading it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from fairlead.cli.exits import CommandFailed, Exit

TOOL = "Tool"


def with_pins(text: str, tool: str, pins: Mapping[str, str]) -> str:
    """Return the text of a file with the pins of a Tool's functions set.

    Args:
        text: YAML with the Tool among its documents.
        tool: the Tool's name.
        pins: the digests by function.

    Raises:
        CommandFailed: it is written in a way in which a pin cannot simply be put.
    """
    edits = {edit for function in _functions(text, tool) for edit in _edits(text, function, pins)}
    result = text
    for start, end, words in sorted(edits, reverse=True):
        result = result[:start] + words + result[end:]
    wanted = [_pinned(document, tool, pins) for document in yaml.safe_load_all(text)]
    if _load(result) != wanted:
        lines = "; ".join(f'{name}: pin: "{pin}"' for name, pin in pins.items())
        raise CommandFailed(Exit.FAILED, f"Tool {tool} is written in a way that is not edited; write yourself {lines}")
    return result


def _functions(text: str, tool: str) -> Iterator[yaml.MappingNode]:
    for document in yaml.compose_all(text, yaml.SafeLoader):
        if _scalar(_value(document, "kind")) == TOOL and _scalar(_value(document, "metadata", "name")) == tool:
            functions = _value(document, "spec", "functions")
            for function in functions.value if isinstance(functions, yaml.SequenceNode) else ():
                if isinstance(function, yaml.MappingNode):
                    yield function


def _edits(text: str, function: yaml.MappingNode, pins: Mapping[str, str]) -> Iterator[tuple[int, int, str]]:
    """Yield (from, to, what is put there)."""
    name = _value(function, "name")
    pin = pins.get(_scalar(name))
    if name is None or pin is None:
        return
    known = _value(function, "pin")
    if known is not None:
        yield known.start_mark.index, known.end_mark.index, f'"{pin}"'
    elif function.flow_style:
        end = max(value.end_mark.index for _, value in function.value)
        yield end, end, f', pin: "{pin}"'
    else:
        first = function.value[0][0].start_mark.column
        end = text.find("\n", name.end_mark.index)
        end = len(text) if end < 0 else end
        carriage = "\r" if text[end - 1 : end] == "\r" else ""
        at = end - len(carriage)
        yield at, at, f'{carriage}\n{" " * first}pin: "{pin}"'


def _value(node: Any, *path: str) -> Any:
    for key in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for name, value in node.value if _scalar(name) == key), None)
    return node


def _scalar(node: Any) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _pinned(document: Any, tool: str, pins: Mapping[str, str]) -> Any:
    """Return the document as it shall be read."""
    if not isinstance(document, dict) or document.get("kind") != TOOL or document["metadata"]["name"] != tool:
        return document
    functions = [
        one | ({"pin": pins[one["name"]]} if one["name"] in pins else {}) for one in document["spec"]["functions"]
    ]
    return document | {"spec": document["spec"] | {"functions": functions}}


def _load(text: str) -> Any:
    try:
        return list(yaml.safe_load_all(text))
    except yaml.YAMLError:
        return None
