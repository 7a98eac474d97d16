"""The engines as fixtures."""

import pytest

from tests.helpers.stream.engines import ENGINES, Engine


@pytest.fixture(params=ENGINES)
def engine(request) -> Engine:
    return ENGINES[request.param]
