"""The shape of the house: imports point down only, rooms don't know each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gpenvid"

# What each room may import from gpenvid. Longest prefix wins; a room may always import itself.
BASE = {"errors", "types", "options", "device", "redact"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "redact": set(),
    "types": set(),
    "native": set(),
    "device": {"errors"},
    "options": {"errors"},
    "weights": {"errors"},
    "metrics": BASE,
    "stages": BASE,
    "logs": {"redact"},
    "media": BASE | {"stages"},
    "faces": BASE | {"weights", "native"},
    "gpen": BASE | {"weights", "stages", "native"},
    "follow": BASE | {"faces", "media", "report"},
    "patch": BASE | {"faces", "media"},
    "patch_torch": BASE | {"faces", "media", "patch"},
    "enhancer": BASE | {"weights", "faces", "gpen", "report", "follow", "patch", "patch_torch"},
    "run": BASE | {"weights", "faces", "gpen", "media", "enhancer", "stages", "report", "trace", "__init__"},
    "tracks": BASE | {"faces", "media", "enhancer", "follow", "stages", "report"},
    "streaming": BASE | {"faces", "gpen", "media", "follow", "enhancer", "stages", "report", "run"},
    "report": BASE | {"trace", "media"},
    "trace": {"errors", "media"},
    "perceptual": BASE | {"weights", "faces"},
}
ANYTHING = {"__init__", "__main__", "cli", "bench", "train", "evaluate"}


def _rooms(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "gpenvid"
                else [node.module or ""]
            )
        else:
            continue
        rooms |= {
            name.split(".")[1] if "." in name else "__init__" for name in names if name.split(".")[0] == "gpenvid"
        }
    return rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = _rooms(path)
    if room in ANYTHING:
        return
    assert room in ALLOWED, f"{room} is not a room of the design"
    assert _imports(path) - {room} <= ALLOWED[room]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_imports_training(path: Path) -> None:
    if _rooms(path) not in {"train", "cli", "__main__"}:
        assert "train" not in _imports(path)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_small(path: Path) -> None:
    if path.name != "arch.py":
        assert path.read_text().count("\n") <= 380
