"""Who may import whom (docs/design.md): read from the source, so nothing needs to be installed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"torch", "tensorflow", "jax", "onnxruntime", "onnx", "transformers", "tvm", "ncnn", "diffusers"}
CORE_MAY = {"numpy", "tomli", "loadgen"} | set(sys.stdlib_module_names)
OFFICIAL = {"mlperf_loadgen", "mlcommons_loadgen"}
CORE, PARITY = "loadgen/src/loadgen/", "loadgen/tests/parity/"
DOOR, WORKBOOK = f"{CORE}__main__.py", f"{CORE}submission/workbook.py"


def imports(path: str, source: str) -> Iterator[tuple[str, bool]]:
    """(dotted name, at import time) of every import; one inside a function or TYPE_CHECKING runs later or never.

    `from a import b` gives `a.b`, and a relative import the name that it stands for: b may be a module.
    """
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
            names = [f"{_base(path, node)}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, id(node) not in later) for name in names)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _base(path: str, node: ast.ImportFrom) -> str:
    """The absolute module of `from ... import`, from the file's place below src/ or a benchmark's folder."""
    if not node.level:
        return node.module or ""
    parts = Path(path).parts
    package = parts[2 : len(parts) - node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def faults(path: str, source: str) -> list[str]:
    """The rules that a file of the repository breaks; `path` is relative to its root."""
    found = []
    parts = Path(path).parts
    own = f"bench_{parts[1]}" if parts[0] == "benchmarks" else None
    for name, now in imports(path, source):
        top = name.split(".")[0]
        rules = {
            "a benchmark is imported by itself and its tests only": top.startswith("bench_") and top != own,
            "only the parity tests may use the official LoadGen": top in OFFICIAL and not path.startswith(PARITY),
            "private to loadgen": own and top == "loadgen" and "._" in name,
            "loadgen imports no framework": path.startswith(CORE) and now and top in FRAMEWORKS,
            "frameworks are imported by backends and models only": own and now and not _may(parts, top),
            "what is measured does not need what is made": own and _reaches_standins(parts, name),
            **(_core_rules(path, name, top) if path.startswith(CORE) and "harness" not in parts else {}),
        }
        found += [f"{path} imports {name}: {rule}" for rule, broken in rules.items() if broken]
    return found


def _core_rules(path: str, name: str, top: str) -> dict[str, bool]:
    """The command line knows every room; the workbook's package comes as an extra."""
    may = {*CORE_MAY, *(["openpyxl"] if path == WORKBOOK else [])}
    return {
        "the core does not know the harness": f"{name}.".startswith("loadgen.harness.") and path != DOOR,
        "the core needs the standard library and numpy only": top not in may,
    }


def _may(parts: tuple[str, ...], top: str) -> bool:
    """A framework in a backend, the model that it shares with the training, or a runtime's own folder."""
    inner = parts[3:]  # below bench_<name>/
    is_backend = inner[-1].startswith("backend_") or inner in (("model.py",), ("standins", "train.py"))
    return (
        top not in FRAMEWORKS
        or bool({"tests", "speed"} & set(parts))
        or is_backend
        or (len(inner) > 1 and inner[0] != "standins")
    )


def _reaches_standins(parts: tuple[str, ...], name: str) -> bool:
    """The literal may: it names them, and has the miniature's sizes."""
    made = name.startswith(f"{parts[2]}.standins")
    return made and parts[2].startswith("bench_") and parts[3] not in ("standins", "benchmark.py")


def python_files() -> list[str]:
    """The repository's own, without what tools make below it."""
    folders = [ROOT / name for name in ("loadgen/src", "loadgen/tests", "benchmarks", "tests", "tools")]
    files = [ROOT / "noxfile.py", *(file for folder in folders for file in folder.rglob("*.py"))]
    names = [file.relative_to(ROOT) for file in sorted(files)]
    return [str(name) for name in names if not {"build", "results"} & set(name.parts)]


@pytest.mark.parametrize("path", python_files())
def test_imports_keep_the_rules(path: str) -> None:
    assert faults(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", [p for p in python_files() if p.startswith("benchmarks/") and "/bench_" in p])
def test_sessions_of_tensorflow_are_opened_in_their_room(path: str) -> None:
    """`loadgen.harness.runtimes.tensorflow` keeps a normalisation's epsilon, and nobody would miss it elsewhere."""
    assert ".Session(" not in (ROOT / path).read_text()


def test_the_rules_see_every_part_of_the_repository() -> None:
    tops = {path.split("/")[0] for path in python_files()}
    assert {"loadgen", "benchmarks", "tests", "noxfile.py"} <= tops


BERT = "benchmarks/bert/bench_bert/dataset.py"
RUN = "loadgen/src/loadgen/run.py"
CLI = "loadgen/src/loadgen/harness/cli.py"


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        (BERT, "from bench_rnnt.dataset import x", "by itself"),
        ("benchmarks/bert/tests/test_x.py", "import bench_rnnt", "by itself"),
        (CLI, "from bench_bert.benchmark import BENCHMARK", "by itself"),
        ("tools/image.py", "import bench_bert", "by itself"),
        (BERT, "import torch", "backends and models"),
        ("benchmarks/bert/bench_bert/standins/formats.py", "import torch", "backends and models"),
        ("benchmarks/bert/bench_bert/standins/backend.py", "import torch", "backends and models"),
        (BERT, "def f():\n    from bench_bert.standins import formats", "what is made"),
        (BERT, "if x:\n    from onnx import helper", "backends and models"),
        (BERT, "from loadgen._hidden import x", "private"),
        (BERT, "from loadgen import _hidden", "private"),
        (BERT, "import loadgen.harness._hidden", "private"),
        (RUN, "def f():\n    import mlperf_loadgen", "official"),
        ("loadgen/tests/test_run.py", "import mlperf_loadgen", "official"),
        ("benchmarks/bert/tests/parity/x.py", "import mlperf_loadgen", "official"),
        (RUN, "from loadgen.harness import cli", "does not know"),
        (RUN, "from loadgen import harness", "does not know"),
        (RUN, "from . import harness", "does not know"),
        (RUN, "from .harness.cli import main", "does not know"),
        (RUN, "import scipy", "standard library"),
        (RUN, "def f():\n    import openpyxl", "standard library"),
        ("loadgen/src/loadgen/submission/check.py", "from loadgen.harness import cli", "does not know"),
        (RUN, "def f():\n    import rich", "standard library"),
        (CLI, "import torch", "no framework"),
    ],
)
def test_a_planted_fault_is_caught(path: str, source: str, rule: str) -> None:
    assert [rule in fault for fault in faults(path, source)].count(True) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (BERT, "def write():\n    import torch"),
        (BERT, "if typing.TYPE_CHECKING:\n    import torch"),
        (BERT, "from . import config\nfrom bench_bert import official\nfrom loadgen.harness import cli"),
        ("benchmarks/bert/bench_bert/backend_pytorch.py", "import torch"),
        ("benchmarks/bert/bench_bert/pytorch/kernels.py", "import torch"),
        ("benchmarks/bert/bench_bert/model.py", "import torch"),
        ("benchmarks/bert/bench_bert/standins/train.py", "import torch"),
        ("benchmarks/bert/bench_bert/standins/formats.py", "from bench_bert.standins import generate"),
        ("benchmarks/bert/bench_bert/benchmark.py", "from bench_bert.standins import SIZES"),
        (CLI, "from ..run import run\nimport rich"),
        (DOOR, "def f():\n    from loadgen.harness.submission import main"),
        (WORKBOOK, "def f():\n    import openpyxl"),
        (PARITY + "official.py", "import mlperf_loadgen"),
    ],
)
def test_what_the_rules_allow(path: str, source: str) -> None:
    assert faults(path, source) == []
