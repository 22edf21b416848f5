"""Every benchmark looks like every other, and no file grows or is named against the house rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = {"resnet50", "retinanet", "bert", "dlrm_v2", "3d_unet", "rnnt", "gpt_j", "sdxl", "llama2_70b"}
FILES = ["README.md", "pyproject.toml", "requirements.lock", "user.conf"]
MODULES = ["__init__", "__main__", "benchmark", "dataset", "formats", "postprocess", "accuracy", "assets"]
HEADINGS = ["## Run", "## Files", "## Accuracy", "## Speed"]
MAX_LINES = 400
MAX_WEIGHTS = 2_000_000
BENCHMARKS = sorted(project.parent for project in ROOT.glob("benchmarks/*/pyproject.toml"))
TEXT = {".py", ".md", ".toml", ".lock", ".conf", ""}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, without what tools make beside them."""
    found = (file for pattern in patterns for file in ROOT.rglob(pattern))
    return sorted(f for f in found if f.is_file() and not _made(f.relative_to(ROOT).parts))


def _made(parts: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") and part != ".ci" for part in parts[:-1])
    return hidden or any(part in ("build", "results", "__pycache__") or ".egg-info" in part for part in parts)


def style_faults(path: str, source: str) -> list[str]:
    """House rules that one Python file breaks."""
    found = []
    if Path(path).stem in ("utils", "common", "helpers", "misc"):
        found.append(f"{path}: a name that explains nothing")
    if len(source.splitlines()) > MAX_LINES:
        found.append(f"{path}: over {MAX_LINES} lines, split it by idea")
    for banned in (r"sys\.path\.(insert|append)", r"os\.chdir", r"shell\s*=\s*True"):
        if re.search(banned, source):
            found.append(f"{path}: {banned}")
    return found


@pytest.mark.parametrize("file", tracked("*.py"), ids=str)
def test_python_files_keep_the_house_rules(file: Path) -> None:
    assert style_faults(str(file.relative_to(ROOT)), file.read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("loadgen/utils.py", ""),
        ("a.py", "x = 1\n" * (MAX_LINES + 1)),
        ("a.py", "import sys\nsys.path." + "append('x')"),
        ("a.py", "run('ls', shell" + "=True)"),
    ],
)
def test_a_planted_fault_is_caught(path: str, source: str) -> None:
    assert style_faults(path, source)


def test_benchmarks_have_known_names() -> None:
    assert {folder.name for folder in BENCHMARKS} <= NAMES
    assert BENCHMARKS, "no benchmark is here: a checkout needs at least one folder under benchmarks/"


@pytest.mark.parametrize("folder", BENCHMARKS, ids=lambda folder: folder.name)
def test_a_benchmark_has_the_same_files(folder: Path) -> None:
    package = folder / f"bench_{folder.name}"
    wanted = [folder / name for name in FILES] + [package / f"{module}.py" for module in MODULES]
    wanted += [package / "mini" / "generate.py", package / "mini" / "train.py"]
    assert [str(path.relative_to(folder)) for path in wanted if not path.is_file()] == []
    assert list(package.glob("backend_*.py")), "a benchmark has at least one backend_<framework>.py"
    assert list((folder / "tests").glob("test_*.py")), "a benchmark has tests"
    assert len((package / "__main__.py").read_text().splitlines()) < 40


@pytest.mark.parametrize("folder", BENCHMARKS, ids=lambda folder: folder.name)
def test_a_benchmark_readme_has_the_same_headings(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert [heading for heading in HEADINGS if f"\n{heading}\n" not in text] == []


@pytest.mark.parametrize("folder", BENCHMARKS, ids=lambda folder: folder.name)
def test_committed_weights_are_small(folder: Path) -> None:
    assert [f.name for f in folder.rglob("mini/*.npz") if f.stat().st_size > MAX_WEIGHTS] == []


def test_the_noxfile_stays_a_menu() -> None:
    assert len((ROOT / "noxfile.py").read_text().splitlines()) < 150


@pytest.mark.parametrize("file", [f for f in tracked("*") if f.suffix in TEXT], ids=str)
def test_no_path_of_one_machine_is_committed(file: Path) -> None:
    homes = r"(?<![\w.])/(home|root|work|Users)/\w"
    assert re.findall(homes, file.read_text(errors="replace")) == []
