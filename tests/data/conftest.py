"""What the tests of data share."""

import jaxtyping
import pytest


@pytest.fixture
def as_a_user():
    """Annotations unchecked, as outside the test run: what a caller with a wrong value really sees."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
