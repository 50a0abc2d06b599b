from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Keeps a figure of a test for the report of ``--junitxml``, of any family."""
    return lambda name, value: request.node.user_properties.append((name, value))
