"""Imports go one way: from programs down to files and errors."""

import ast
import pathlib
import subprocess
import sys

import pytest

import resnet_jax

PACKAGE = pathlib.Path(resnet_jax.__file__).parent

# A room imports its own floor's rooms never, and others only from floors further down.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"doctor", "reproduce"},
    {"training"},
    {"evaluation"},
    {"checkpoints", "interop", "analysis"},
    {"config"},
    {"models", "data", "parallel"},
    {"files"},
    {"errors"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}


def imported_rooms(path):
    """Yields the room, and the line, of every import of this package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "resnet_jax":
            names = [f"resnet_jax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [node.module]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "resnet_jax":
                yield rest.split(".")[0], node.lineno


def test_every_room_has_a_floor():
    assert ROOMS - {"__init__"} == FLOOR.keys()


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_imports_only_from_floors_below(room):
    paths = [PACKAGE / f"{room}.py", *PACKAGE.glob(f"{room}/**/*.py")]
    up = [
        f"{path.relative_to(PACKAGE)}:{line} imports {other}"
        for path in paths
        if path.exists()
        for other, line in imported_rooms(path)
        if other != room and FLOOR[other] <= FLOOR[room]
    ]
    assert not up


def test_the_models_import_errors_alone():
    imported = {
        other for path in PACKAGE.glob("models/**/*.py") for other, _ in imported_rooms(path)
    }
    assert imported <= {"models", "errors"}


def test_no_private_module_of_a_library_is_imported():
    private = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.lstrip().startswith(("import ", "from ")) and "._" in line.split(" import ")[0]
    ]
    assert not private


def test_a_network_is_made_without_the_other_rooms():
    script = (
        "import sys, resnet_jax; resnet_jax.create_model('resnet50');"
        "print(*{name.split('.')[1] for name in sys.modules if name.startswith('resnet_jax.')})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"models", "errors"}


def test_the_names_of_other_rooms_are_imported_at_their_first_use():
    assert resnet_jax.summarize is resnet_jax.analysis.summarize
    assert all(hasattr(resnet_jax, name) for name in resnet_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = resnet_jax.nothing
