"""The engines as fixtures."""

import pytest

from tests.stream.engines import ENGINES, Engine


@pytest.fixture(params=ENGINES)
def engine(request) -> Engine:
    return ENGINES[request.param]
