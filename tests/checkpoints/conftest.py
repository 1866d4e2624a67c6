import shutil
from pathlib import Path

import pytest

from tests.checkpoints.trees import save_small


@pytest.fixture
def logged() -> list[str]:
    return []


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints 10 and 20, to be copied."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    save_small(folder, {10: 2.0, 20: 1.0})
    return folder


@pytest.fixture
def pair(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "checkpoints"))
