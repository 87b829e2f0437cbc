"""What a call to a Model can come to, and what it came to: never more than what was held for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.declared import model
from tests.unit.engine.test_models import answering, ask, chat, embed, sent, served

from fairlead.engine.metering import TEMPLATE_TOKENS, charged, cost, most
from fairlead.flow.calls import Outcome
from fairlead.flow.spending import USD, Spend

PRICE = {"inputUSDPerMTok": "0.15", "outputUSDPerMTok": "0.60", "cachedInputUSDPerMTok": "0.075"}
PAID = model("https://models.example.com/v1", price=PRICE)
HELD = Spend(1000, 500, 10**12)


def test_no_more_tokens_go_in_than_there_are_bytes_and_none_come_out_than_were_asked_for() -> None:
    call = chat([{"role": "user", "content": "é" * 1000}], parameters={"maxOutputTokens": 200})
    held = most(call, PAID)
    assert held.input_tokens >= 2000 + TEMPLATE_TOKENS
    assert held.output_tokens == sent(call)["max_tokens"] == 200
    assert held.cost == held.input_tokens * 150_000 + 200 * 600_000


def test_a_schema_in_words_counts_and_embeddings_answer_nothing() -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string", "description": "x" * 500}}}
    assert most(chat(schema=schema), PAID).input_tokens > most(chat(), PAID).input_tokens + 500
    assert most(embed("a", "b"), model("https://x.example/v1", api="OpenAIEmbeddings")).output_tokens == 0


REPORTED: dict[str, tuple[dict[str, Any], Spend]] = {
    "what it says": ({"input_tokens": 100, "output_tokens": 10}, Spend(100, 10, 100 * 150_000 + 10 * 600_000)),
    "what it kept is cheaper": (
        {"input_tokens": 100, "output_tokens": 0, "cached_tokens": 60},
        Spend(100, 0, 40 * 150_000 + 60 * 75_000),
    ),
    "more than it can be": (
        {"input_tokens": 10**9, "output_tokens": 10**9},
        Spend(1000, 500, 1000 * 150_000 + 500 * 600_000),
    ),
    "more kept than sent": ({"input_tokens": 10, "cached_tokens": 10**9}, Spend(10, 0, 10 * 75_000)),
    "nobody knows": ({"metered": False}, HELD),
    "it was never sent": ({}, Spend()),
}


@pytest.mark.parametrize(("told", "used"), REPORTED.values(), ids=REPORTED)
def test_a_model_is_believed_within_what_was_held(told: dict[str, Any], used: Spend) -> None:
    assert charged(Outcome(**told), HELD, PAID) == used


def test_a_price_that_rose_meanwhile_costs_no_more_than_was_held() -> None:
    assert charged(Outcome(input_tokens=100), replace(HELD, cost=7), PAID).cost == 7


counts = st.integers(0, 2**40)


@given(counts, counts, counts, st.booleans())
def test_nothing_that_a_server_says_costs_more_than_was_held(given_: int, made: int, kept: int, metered: bool) -> None:
    outcome = Outcome(input_tokens=given_, output_tokens=made, cached_tokens=kept, metered=metered)
    used = charged(outcome, HELD, PAID)
    assert used.input_tokens <= HELD.input_tokens and used.output_tokens <= HELD.output_tokens
    assert 0 <= used.cost <= HELD.cost


def test_prices_are_exact() -> None:
    assert cost(PAID.spec.price, 1_000_000, 0) == 15 * USD // 100
    assert cost(None, 10**6, 10**6) == 0


SAID = b'{"choices": [{"message": {"content": "x"}}], "usage": %s}'
USAGES: dict[str, tuple[bytes, tuple[int, int, int], bool]] = {
    "all of it": (
        b'{"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}',
        (9, 4, 5),
        True,
    ),
    "nothing": (b"null", (0, 0, 0), False),
    "nonsense": (b'{"prompt_tokens": -3, "completion_tokens": "x", "prompt_tokens_details": 1}', (0, 0, 0), False),
}


@pytest.mark.parametrize(("usage", "tokens", "metered"), USAGES.values(), ids=USAGES)
async def test_who_says_nothing_of_what_was_used_is_not_metered(
    usage: bytes, tokens: tuple[int, int, int], metered: bool
) -> None:
    async with served(answering(200, SAID % usage)) as url:
        outcome = await ask(f"{url}/v1", chat())
    assert (outcome.input_tokens, outcome.output_tokens, outcome.cached_tokens) == tokens
    assert outcome.metered is metered


@pytest.mark.parametrize(
    ("status", "metered"), [(429, True), (400, True), (500, True), (504, False), (408, False)], ids=str
)
async def test_a_refusal_costs_nothing_and_a_timeout_may(status: int, metered: bool) -> None:
    async with served(answering(status, b"{}")) as url:
        assert (await ask(f"{url}/v1", chat())).metered is metered


async def test_what_was_not_sent_costs_nothing() -> None:
    assert (await ask("http://127.0.0.1:1/v1", chat())).metered
