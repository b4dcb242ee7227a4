"""Arrows point down: a package imports only from floors below its own, and never from a sibling."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src" / "unnoise"

FLOORS = {
    "errors": -2,
    "core": 0,
    "paths": 1,
    "predictions": 1,
    "spacings": 1,
    "solvers": 1,
    "guidances": 1,
    "objectives": 1,
    "kernels": 1,
    "networks": 2,
    "autoencoders": 2,
    "encoders": 2,
    "weights": 3,
    "data": 3,
    "engine": 4,
    "training": 4,
    "study": 4,
    "inspection": 5,
    "recipes": 5,
    "cli": 6,
    "server": 6,
    "studio": 6,
    "__main__": 7,
}
HELPERS = -1  # single modules beside errors.py (files.py): below all packages but core, which does without them


def floor(name: str) -> int:
    """Of a package or single module of unnoise.

    Raises:
        KeyError: a package that has been given no floor: name it above.
    """
    return FLOORS[name] if name in FLOORS or not (SRC / f"{name}.py").exists() else HELPERS


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything imported, at the top and inside functions, relative names resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base]) if base else ".".join(up)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def when_imported(tree: ast.Module) -> set[int]:
    """Lines of imports that run when the module is imported: not inside a function, nor for type checkers alone."""
    late = (ast.FunctionDef, ast.AsyncFunctionDef)
    idle = [node for node in ast.walk(tree) if isinstance(node, late)]
    idle += [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    inner = {id(node) for each in idle for node in ast.walk(each)}
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return {node.lineno for node in found if id(node) not in inner}


def faults(root: Path) -> list[str]:
    """Every import in the tree that points up or sideways, and every one that core may not have."""
    found = []
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        tree = ast.parse(file.read_text(encoding="utf-8"))
        package = ".".join(["unnoise", *parts[:-1]])
        at_import = when_imported(tree)
        for line, name in imports(tree, package):
            where = f"{file.relative_to(root)}:{line} imports {name}"
            if name.split(".")[0] != "unnoise":
                outside = name.split(".")[0]
                if parts[0] == "core" and outside != "torch" and outside not in sys.stdlib_module_names:
                    found.append(f"{where}: core stands on torch alone")
                continue
            target = name.split(".")[1] if "." in name else ""
            if parts == ("__init__",):  # the front door: lazily, and from the engine at most
                if (target in FLOORS and floor(target) > FLOORS["engine"]) or line in at_import:
                    found.append(f"{where}: the front door opens late, and on the engine")
            elif not target or target == "__version__":
                continue
            elif parts[0] == "core" and target not in ("core", "errors"):
                found.append(f"{where}: core stands on torch alone")
            elif target != parts[0] and floor(target) >= floor(parts[0]):
                found.append(f"{where}: floor {floor(target)} from floor {floor(parts[0])}")
    return found


def test_arrows_point_down() -> None:
    assert not faults(SRC)


def test_every_package_has_a_floor() -> None:
    packages = {path.name for path in SRC.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert packages <= set(FLOORS), f"name a floor for {packages - set(FLOORS)}"


def test_a_bad_import_is_found(tmp_path: Path) -> None:
    """The control: each way to point up, planted in a tree of its own, is found; and what is allowed is not."""
    planted = {
        "core/a.py": "import numpy\n",
        "core/b.py": "def f():\n    from unnoise.paths.flow import Flow\n",
        "core/c.py": "import math, torch\nfrom unnoise.errors import UnnoiseError\nfrom unnoise.core import level\n",
        "solvers/d.py": "from unnoise.paths.flow import Flow\n",
        "solvers/e.py": "from unnoise.core.level import NoiseLevel\nfrom unnoise.solvers.euler import Euler\n",
        "paths/f.py": "import unnoise.training.trainer\n",
        "networks/g.py": "from ..autoencoders import kl\n",
        "networks/h.py": "from ..core import level\nfrom .unet import UNet\n",
        "recipes/i.py": "from unnoise.cli.main import main\n",
        "cli/j.py": "from unnoise.recipes import run\n",
        "__init__.py": "from unnoise.engine import generate\n",
    }
    for name, text in planted.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {fault.split(":")[0] for fault in faults(tmp_path)}
    assert found == {
        "core/a.py",
        "core/b.py",
        "solvers/d.py",
        "paths/f.py",
        "networks/g.py",
        "recipes/i.py",
        "__init__.py",
    }
    (tmp_path / "__init__.py").write_text("def f():\n    from unnoise.engine import generate\n    return generate\n")
    assert "__init__.py" not in {fault.split(":")[0] for fault in faults(tmp_path)}
