"""Who may import whom (docs/design.md): read from the source, so nothing needs to be installed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOADGEN = ROOT / "loadgen" / "src" / "loadgen"
FRAMEWORKS = {"torch", "tensorflow", "onnxruntime", "onnx", "transformers", "tvm", "ncnn", "diffusers"}
CORE_MAY = {"numpy", "tomli", "loadgen"} | set(sys.stdlib_module_names)
OFFICIAL = {"mlperf_loadgen", "mlcommons_loadgen"}


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """(module, at import time) of every import; one inside a function or TYPE_CHECKING runs later or never."""
    tree = ast.parse(source)
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        yield from ((name, id(node) not in later) for name in names)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def faults(path: str, source: str) -> list[str]:
    """The rules that a file of the repository breaks; `path` is relative to its root."""
    found = []
    parts = Path(path).parts
    core = path.startswith("loadgen/src/loadgen/") and "harness" not in parts
    own = f"bench_{parts[1]}" if parts[0] == "benchmarks" else None
    for module, now in imports(source):
        top = module.split(".")[0]
        if top.startswith("bench_") and top != own:
            found.append(f"{path} imports {module}: a benchmark is imported by itself and its tests only")
        if top in OFFICIAL and "parity" not in parts:
            found.append(f"{path} imports {module}: only tests/parity may use the official LoadGen")
        if own and module.startswith("loadgen._"):
            found.append(f"{path} imports {module}: private to loadgen")
        if path.startswith("loadgen/src/") and now and top in FRAMEWORKS:
            found.append(f"{path} imports {module}: loadgen imports no framework")
        if core and module.startswith("loadgen.harness"):
            found.append(f"{path} imports {module}: the core does not know the harness")
        if core and top not in CORE_MAY:
            found.append(f"{path} imports {module}: the core needs the standard library and numpy only")
        if own and now and top in FRAMEWORKS and not _may_import_framework(parts):
            found.append(f"{path} imports {module}: frameworks are imported by backends and models only")
    return found


def _may_import_framework(parts: tuple[str, ...]) -> bool:
    return "tests" in parts or parts[-1].startswith("backend_") or parts[-1] in ("model.py", "train.py")


def python_files() -> list[str]:
    folders = [LOADGEN.parent, ROOT / "loadgen" / "tests", ROOT / "benchmarks"]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return [str(file.relative_to(ROOT)) for file in files]


@pytest.mark.parametrize("path", python_files())
def test_imports_keep_the_rules(path: str) -> None:
    assert faults(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("benchmarks/bert/bench_bert/dataset.py", "from bench_rnnt.dataset import x"),
        ("benchmarks/bert/bench_bert/dataset.py", "import torch"),
        ("benchmarks/bert/bench_bert/dataset.py", "from loadgen._hidden import x"),
        ("loadgen/src/loadgen/run.py", "import mlperf_loadgen"),
        ("loadgen/src/loadgen/run.py", "from loadgen.harness import cli"),
        ("loadgen/src/loadgen/run.py", "import scipy"),
        ("loadgen/src/loadgen/harness/cli.py", "import torch"),
        ("loadgen/src/loadgen/harness/cli.py", "from bench_bert.benchmark import BENCHMARK"),
    ],
)
def test_a_planted_fault_is_caught(path: str, source: str) -> None:
    assert faults(path, source)


def test_an_import_inside_a_function_is_allowed() -> None:
    assert not faults("benchmarks/bert/bench_bert/formats.py", "def write():\n    import torch")
