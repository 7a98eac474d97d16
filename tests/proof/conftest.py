"""One bundle, written once."""

import pytest

from tests.helpers.proof.bundles import copied, written


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A bundle as it was written; leave it as it is."""
    return written(tmp_path_factory.mktemp("bundles") / "whole")


@pytest.fixture
def mine(whole, tmp_path):
    """A copy to be changed."""
    return copied(whole, tmp_path / "mine")
