import pytest

from tests.quick import few_optimizations


@pytest.fixture(autouse=True)
def _few_optimizations():
    with few_optimizations():
        yield
