"""For unit tests that look at a store: one PostgreSQL for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    why = postgres.missing()
    if why and os.environ.get("FAIRLEAD_REQUIRE_CLUSTER") == "1":
        pytest.fail(why)
    elif why:
        pytest.skip(why)
    with postgres.server() as server:
        yield server
