"""CEL behind one wrapper: compile once, bind only what is referenced, raise instead of returning errors.

Everything conditional or computed in a Workflow ends here: `when`, `until`, rules and the `$( )` of `template.py`.
Results are deterministic JSON. Cost is bounded by the library (nesting of 32, 10,000 loop iterations, RE2), by what may
be bound (`values.py`), by the size of a loop that makes a list (`syntax.py`) and by what is made (`cost.py`).
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# The package has stubs but no py.typed marker.
from cel_expr_python import cel
from cel_expr_python.ext import (
    ext_encoders,
    ext_math,
    ext_optional,
    ext_strings,
)

from fairlead.api.reasons import ErrorClass
from fairlead.errors import StepError
from fairlead.flow import functions, syntax, wording
from fairlead.flow.cost import exceeded, grows
from fairlead.flow.syntax import Message, Reference
from fairlead.flow.values import MAX_DEPTH, Reading, in_mib, to_cel, to_json

__all__ = [
    "Expression",
    "ExpressionError",
    "Reference",
    "check_types",
    "compile_expression",
    "evaluate",
    "evaluate_bool",
    "located",
    "named",
    "read",
]

if sys.version_info < (3, 12):
    # For every null the library gives back one reference to None too many, and who frees the last one ends the process.
    # Later versions of Python count none; here it gets as many as nobody can use up.
    ctypes.c_ssize_t.from_address(id(None)).value += 1 << 60

TOO_LARGE = "TooLarge"
"""The reason of a step whose value is over a bound."""

MAX_BYTES = 4096
"""The longest expression, in UTF-8."""

SHOWN_CHARACTERS = 120
"""So much of an expression stands in its errors."""

_SYNTAX_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (?:Syntax error: )?([^\n]*)")

# What the library says, and what we tell: never a value. The first that is found counts.
_FAILURES = (
    (r"Iteration budget exceeded", "the loops take more than 10,000 iterations"),
    (r"_\+_\(map, list\)", "map and filter take a list; a map has no order"),
    (r"<jump_condition>", "a condition is neither true nor false"),
    (r"<iter_range>", "a loop runs over what is neither a list nor a map"),
    (
        r"Applying SELECT to non-message type",
        "a member is read of something that is no object; get() gives null instead",
    ),
    (r"Index error: expected integer type, got (\w+)$", r"an item of a list has a number, not a \1"),
    (r"Index error", "an index is outside of its list"),
    (r"Invalid container type: '(\w+)'", r"an item is read of what is neither a list nor a map, but \1"),
    (r"divide by zero|modulus by zero", "division by zero"),
    (r"integer overflow|out of range", "a number is out of range"),
    (r"invalid regular expression", "a regular expression is invalid"),
    (r"(cannot convert|conversion failed)", "a conversion failed"),
    (r"invalid base64", "the text is not base64"),
    (r"^OUT_OF_RANGE: ((?:toJson|fromJson|an? \w+) .*)$", r"\1"),  # what functions.py and values.py raise
)
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_NOISE = re.compile(r" expecting \{.*| \(in container ''\)| \[INVALID_ARGUMENT\]$")
_MISSING_KEY = re.compile(r'Key not found in map : "([^"]*)"$')


class ExpressionError(StepError):
    """An expression does not compile or has no value. The message holds no content of what it read."""

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(ErrorClass.INVALID, message, reason=reason)

    def at(self, place: str, text: str) -> ExpressionError:
        """Return the error with the field and the expression: both are the Workflow's own words."""
        words = " ".join(text.split())
        shown = words if len(words) <= SHOWN_CHARACTERS else f"{words[:SHOWN_CHARACTERS]}..."
        return ExpressionError(f"{place}: `{shown}`: {self.message}", reason=self.reason)


class Expression:
    """A compiled expression. Make it with `compile_expression`."""

    __slots__ = ("_growing", "_program", "_reads", "_words", "named", "references", "text")

    def __init__(
        self,
        text: str,
        program: cel.Expression,
        references: tuple[Reference, ...],
        named: tuple[str, ...],
        growing: Message | None,
    ) -> None:
        self.text = text
        self.references = references
        self.named = named
        self._program = program
        self._growing = growing
        self._reads = _tree(references)
        self._words = frozenset(re.findall(r"\w+", text))

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """Return the expression's value as JSON.

        Args:
            scope: the JSON values of the names in scope; only what is referenced is read.

        Raises:
            ExpressionError: a name is not in scope, a value cannot be bound, or the evaluation fails.
        """
        data: dict[str, Any] = {}
        reading = Reading()
        for root, members in self._reads.items():
            if root not in scope:
                raise ExpressionError(f"'{root}' is not in scope here")
            try:
                data[root] = _bind(scope[root], members, reading)
            except ValueError as error:
                raise ExpressionError(f"'{root}' cannot be read: {error}") from None
        if self._growing is not None and (most := exceeded(self._growing, data)):
            raise ExpressionError(f"the expression may make more than {in_mib(most)} of these values", reason=TOO_LARGE)
        return self._run(data)

    def _run(self, data: dict[str, Any]) -> Any:
        try:
            value = self._program.eval(data=data)
            plain, kind = value.plain_value(), value.type()
        except RuntimeError as error:
            raise ExpressionError(self._explain(str(error))) from None
        except (TypeError, SystemError):  # how the binding says that it has no Python value for an optional
            raise ExpressionError(functions.UNWRAP) from None
        if kind == cel.Type.ERROR:
            raise ExpressionError(self._explain(str(plain)))
        try:
            return to_json(plain)
        except ValueError as error:
            raise ExpressionError(str(error)) from None

    def _explain(self, failure: str) -> str:
        """Return the failure in our words; a missing key is named only if the expression itself names it."""
        key = _MISSING_KEY.search(failure)
        if key is not None:
            return f"there is no '{key[1]}'" if key[1] in self._words else "there is no such key"
        tree = syntax.expression_of(*syntax.unpack(_compile(_environment(()), self.text, check=False).serialize()))
        for pattern, words in _FAILURES:
            found = re.search(pattern, failure)
            if found is not None:
                return found.expand(words)
        return (
            wording.refused(failure, tree)
            or "the evaluation failed: " + failure.partition(":")[0].replace("_", " ").lower()[:40]
        )


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Expression:
    """Return the compiled expression, from the cache when it was compiled before.

    Raises:
        ExpressionError: the text is too long, is no CEL, or does not fit its types. The message names line and column.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ExpressionError("the expression holds half a surrogate pair") from None
    if size > MAX_BYTES:
        raise ExpressionError(f"the expression has {size} bytes; at most {MAX_BYTES} are allowed")
    if "\0" in text:
        raise ExpressionError("the expression holds the NUL character")
    parsed, kind = syntax.unpack(_compile(_environment(()), text, check=False).serialize())
    roots = {reference.root for reference in syntax.references(syntax.expression_of(parsed, kind))}
    environment = _environment(tuple(sorted(roots)))
    checked = _compile(environment, text, check=True)
    tree, kind = syntax.unpack(checked.serialize())
    expr = syntax.expression_of(tree, kind)
    found = syntax.references(expr)
    growing = syntax.expression_of(*syntax.unpack(checked.serialize())) if grows(expr) else None
    named_by = syntax.named_by(expr)
    syntax.bound_loops(expr)
    syntax.unwrap_entries(expr)
    if _is_optional(checked):
        expr = syntax.or_null(expr)
    program = environment.deserialize(syntax.pack(syntax.with_expression(tree, kind, expr), kind))
    return Expression(text, program, found, named_by, growing)


def check_types(text: str, types: Iterable[tuple[str, str]]) -> tuple[str, str, Message]:
    """Return what the library's checker says where names, or members of them, have types.

    That is the type of the result, else its complaints, and the tree that they are about. Nothing that runs is compiled
    so. What `has` asks for keeps no type: for the checker it would no longer be a member.
    """
    tree = syntax.expression_of(*syntax.unpack(_compile(_environment(()), text, check=False).serialize()))
    roots = {reference.root for reference in syntax.references(tree)}
    asked = {str(reference) for reference in syntax.presences(tree)}
    known = tuple((name, of) for name, of in types if name not in asked)
    try:
        return str(_environment(tuple(sorted(roots)), known).compile(text).return_type().name()), "", tree
    except RuntimeError as error:
        return "", str(error), tree


def evaluate(text: str, scope: Mapping[str, Any]) -> Any:
    """Compile and evaluate.

    Raises:
        ExpressionError: as `compile_expression` and `Expression.evaluate`.
    """
    return compile_expression(text).evaluate(scope)


def evaluate_bool(text: str, scope: Mapping[str, Any], at: str = "") -> bool:
    """Compile and evaluate a condition. `at` is the field where it stands, for its errors.

    Raises:
        ExpressionError: also when the value is neither true nor false.
    """
    with located(at, text):
        value = evaluate(text, scope)
        if not isinstance(value, bool):
            raise ExpressionError("the expression must be true or false")
        return value


@contextmanager
def located(place: str, text: str) -> Iterator[None]:
    """Let errors tell of the field and the expression, unless there is no field to tell of."""
    try:
        yield
    except ExpressionError as error:
        if not place:
            raise
        raise error.at(place, text) from None


def read(text: str, scope: Mapping[str, Any]) -> Any:
    """Return the value that an expression names, as it is, if it does no more than name one; else evaluate it.

    So lists have no bound here but that of values, and what is not computed with needs not be what CEL can take.

    Raises:
        ExpressionError: as `evaluate`.
    """
    value: Any = scope
    for member in compile_expression(text).named or ("",):
        if not isinstance(value, Mapping) or member not in value:
            return evaluate(text, scope)
        value = value[member]
    return value


def named(text: str) -> list[str]:
    """Return the name and members that an expression consists of; empty when it does more than name a value."""
    return text.split(".") if _NAME.fullmatch(text) else []


@lru_cache(maxsize=256)
def _environment(roots: tuple[str, ...], types: tuple[tuple[str, str], ...] = ()) -> cel.Env:
    return cel.NewEnv(
        variables=dict.fromkeys(roots, cel.Type.DYN) | {name: cel.Type(of) for name, of in types},
        extensions=[
            ext_optional.ExtOptional(),
            ext_strings.ExtStrings(),
            ext_math.ExtMath(),
            ext_encoders.ExtEncoders(),
        ],
        functions=functions.declarations(),
    )


def _is_optional(checked: cel.Expression) -> bool:
    try:
        return str(checked.return_type().name()).startswith("optional_type")
    except RuntimeError:  # the type of a map whose keys JSON does not have
        raise ExpressionError("a map has keys that are not strings") from None


def _compile(environment: cel.Env, text: str, *, check: bool) -> cel.Expression:
    try:
        return environment.compile(text, disable_check=not check)
    except RuntimeError as error:
        raise ExpressionError(_position(str(error))) from None


def _position(failure: str) -> str:
    found = _SYNTAX_ERROR.search(failure)
    if "recursion" in failure:
        return "the expression is nested more than 32 levels deep"
    if found is None:
        return "the expression is not valid CEL"
    line, column, message = found.groups()
    return f"line {line}, column {column}: {_NOISE.sub('', message)[:200]}"


def _tree(references: Iterable[Reference]) -> dict[str, Any]:
    """Return the references as nested dicts; an empty one stands for a value that is read as a whole."""
    tree: dict[str, Any] = {}
    whole: set[tuple[str, ...]] = set()
    for reference in sorted(references):  # a prefix sorts first
        path = (reference.root, *reference.members)
        if any(path[:length] in whole for length in range(1, len(path))):
            continue
        whole.add(path)
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    return tree


def _bind(value: Any, members: Mapping[str, Any], reading: Reading, depth: int = 0) -> Any:
    if not members or not isinstance(value, Mapping):
        return to_cel(value, depth, reading)
    if depth >= MAX_DEPTH:
        raise ValueError(f"a value is nested more than {MAX_DEPTH} levels deep")
    return {name: _bind(value[name], below, reading, depth + 1) for name, below in members.items() if name in value}
