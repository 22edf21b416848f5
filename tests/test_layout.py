"""Every benchmark looks like every other, and no file grows or is named against the house rules."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
NAMES = {"resnet50", "retinanet", "bert", "dlrm_v2", "3d_unet", "rnnt", "gpt_j", "sdxl", "llama2_70b"}
FILES = ["Dockerfile", "README.md", "pyproject.toml", "requirements.lock", "user.conf"]
MODULES = ["__init__", "__main__", "benchmark", "dataset", "postprocess", "accuracy", "assets"]
MODULES += ["standins/formats", "standins/synthetic", "standins/miniature", "standins/generate", "standins/train"]
HEADINGS = ["## Run", "## Files", "## Accuracy"]
MAX_LINES, MAX_MAIN_LINES, MAX_MENU_LINES = 400, 39, 172
MAX_WEIGHTS = 2_000_000  # bytes
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
BANNED_CODE = {
    r"sys\.path\s*(\[.*\]\s*)?\+?=[^=]|sys\.path\.(insert|append|extend)|site\.addsitedir": "edits sys.path",
    r"\bos\.f?chdir\b|from os\s+import .*\bchdir\b": "changes the folder of the whole process",
    r"shell\s*=\s*True": "runs a shell",
}
BENCHMARKS = sorted(project.parent for project in ROOT.glob("benchmarks/*/pyproject.toml"))
TEXT = {".py", ".md", ".toml", ".lock", ".conf", ""}


def own_files(root: Path, pattern: str = "*") -> list[Path]:
    """Files of the repository, without what tools make beside them."""
    found = ((file, file.relative_to(root).parts) for file in root.rglob(pattern) if file.is_file())
    return sorted(file for file, parts in found if not _made(parts))


def _made(parts: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") and part != ".ci" for part in parts[:-1])
    return hidden or any(part in (".git", "build", "results", "__pycache__") or ".egg-info" in part for part in parts)


def style_faults(path: str, source: str) -> list[str]:
    """House rules that one Python file breaks."""
    found = [f"{path}: a name that explains nothing"] if BANNED_NAMES & set(Path(path).with_suffix("").parts) else []
    limit = {"__main__": MAX_MAIN_LINES, "noxfile": MAX_MENU_LINES}.get(Path(path).stem, MAX_LINES)
    if len(source.splitlines()) > limit:
        found.append(f"{path}: over {limit} lines, split it by idea")
    return found + [f"{path}: {why}" for code, why in BANNED_CODE.items() if re.search(code, source)]


def path_faults(source: str) -> list[str]:
    """Paths of one machine; /tmp and /results are every machine's."""
    return [match.group() for match in re.finditer(r"(?<![\w.])/(home|root|work|opt|Users)/\w+", source)]


def lock_faults(text: str) -> list[str]:
    """Lines that are no `name==version`: hashes, addresses, local version tags; CUDA packages; disorder."""
    head, *lines = text.splitlines()
    found = [] if head.startswith("# Made by `nox -s lock-") else ["the first line says how it was made"]
    found += [line for line in lines if not re.fullmatch(r"[a-z0-9][\w.-]*==[\w.]+", line)]
    found += [line for line in lines if re.match(r"(nvidia|cuda|triton|pytorch.triton)", line)]
    return found + ([] if lines == sorted(lines) else ["not sorted"])


def packages_faults(folder: Path) -> list[str]:
    """An image installs before the code is there: packages that a pyproject lists would be missing then."""
    packages = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    right = {"find": {"include": [f"bench_{folder.name}*"]}}
    return [] if packages == right else ["pyproject.toml lists its packages"]


def benchmark_faults(folder: Path) -> list[str]:
    """What a benchmark's folder lacks, or has too much of."""
    package = folder / f"bench_{folder.name}"
    wanted = [folder / name for name in FILES] + [package / f"{module}.py" for module in MODULES]
    found = [f"no {path.relative_to(folder)}" for path in wanted if not path.is_file()]
    found += [f"no {glob}" for glob in ("bench_*/**/backend*.py", "tests/test_*.py") if not any(folder.glob(glob))]
    found += [f"no {glob}" for glob in ("bench_*/standins/weights.*",) if not any(folder.glob(glob))]
    found += [f"{file.name} is too large" for file in own_files(folder) if file.stat().st_size > MAX_WEIGHTS]
    found += [] if folder.name in NAMES else [f"{folder.name} is no known benchmark"]
    if not found:
        readme = (folder / "README.md").read_text()
        found += [f"README.md has no {heading}" for heading in HEADINGS if f"\n{heading}\n" not in readme]
        found += lock_faults((folder / "requirements.lock").read_text())
        found += packages_faults(folder)
    return found


def dockerfile_form(folder: Path) -> str:
    """A Dockerfile without what may differ: the benchmark's name, and the miniature's backend, the first extra."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    backend = f"ARG BACKENDS={next(iter(project['optional-dependencies']))}\n"
    return (folder / "Dockerfile").read_text().replace(backend, "ARG BACKENDS=FIRST\n").replace(folder.name, "NAME")


@pytest.mark.parametrize("file", own_files(ROOT, "*.py"), ids=lambda file: str(file.relative_to(ROOT)))
def test_python_files_keep_the_house_rules(file: Path) -> None:
    assert style_faults(str(file.relative_to(ROOT)), file.read_text()) == []


@pytest.mark.parametrize(
    "file", [f for f in own_files(ROOT) if f.suffix in TEXT], ids=lambda file: str(file.relative_to(ROOT))
)
def test_no_path_of_one_machine_is_committed(file: Path) -> None:
    assert path_faults(file.read_text(errors="replace")) == []


def test_a_benchmark_is_here() -> None:
    assert BENCHMARKS, "a checkout needs at least one folder below benchmarks/"


@pytest.mark.parametrize("folder", BENCHMARKS, ids=lambda folder: folder.name)
def test_benchmarks_have_the_same_files(folder: Path) -> None:
    assert benchmark_faults(folder) == []


def test_dockerfiles_differ_by_their_benchmark_only() -> None:
    forms = {folder.name: dockerfile_form(folder) for folder in BENCHMARKS}
    assert {name: form for name, form in forms.items() if form != forms[BENCHMARKS[0].name]} == {}


@pytest.mark.parametrize("line", ["ENV HOME=/tmp", "ARG BACKENDS=onnxruntime", "USER 1000:1000"])
def test_a_planted_difference_of_dockerfiles_is_caught(line: str, tmp_path: Path) -> None:
    first = BENCHMARKS[0]
    other = tmp_path / "gpt_j"
    other.mkdir()
    shutil.copy(first / "pyproject.toml", other)
    text = (first / "Dockerfile").read_text().replace(first.name, other.name)
    assert line in text
    (other / "Dockerfile").write_text(text)
    assert dockerfile_form(other) == dockerfile_form(first)
    (other / "Dockerfile").write_text(text.replace(line, f"{line}x"))
    assert dockerfile_form(other) != dockerfile_form(first)


LONG = "x = 1\n"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("loadgen/utils.py", ""),
        ("loadgen/common/x.py", ""),
        ("a.py", LONG * (MAX_LINES + 1)),
        ("bench_x/__main__.py", LONG * (MAX_MAIN_LINES + 1)),
        ("noxfile.py", LONG * (MAX_MENU_LINES + 1)),
        ("a.py", "sys.path." + "append('x')"),
        ("a.py", "sys.path" + "[:0] = ['x']"),
        ("a.py", "sys.path" + " += ['x']"),
        ("a.py", "os." + "chdir('x')"),
        ("a.py", "from os " + "import chdir"),
        ("a.py", "run('ls', shell" + "=True)"),
    ],
)
def test_a_planted_style_fault_is_caught(path: str, source: str) -> None:
    assert len(style_faults(path, source)) == 1


def test_style_rules_leave_other_code_alone() -> None:
    source = "if sys.path == []:\n    session.chdir(x)\n" + LONG * (MAX_LINES - 2)
    assert style_faults("loadgen/src/loadgen/run.py", source) == []


def test_a_planted_path_is_caught() -> None:
    assert path_faults("open('/" + "home/me/x')") == ["/" + "home/me"]
    assert path_faults("docs/home/x, /tmp/x, https://a.org/Users/x") == []


@pytest.mark.parametrize(
    "line", ["a==1+cpu", "b @ file:///x", "c==1 --hash=sha256:0", "nvidia-nccl==1", "triton==3", "zz==1\naa==1", "d>=1"]
)
def test_a_planted_lock_fault_is_caught(line: str) -> None:
    head = "# Made by `nox -s lock-x`\n"
    assert lock_faults(head + line)
    assert lock_faults(head + "a==1.0.post1\ntorch==2.13.0\n") == []


def _rename(folder: Path) -> None:
    (folder / "bench_bert").rename(folder / "bert")


def _unhead(folder: Path) -> None:
    (folder / "README.md").write_text("# BERT\n")


BREAK: dict[str, Callable[[Path], None]] = {
    "no Dockerfile": lambda folder: (folder / "Dockerfile").unlink(),
    "no pyproject.toml": lambda folder: (folder / "pyproject.toml").unlink(),
    "no bench_bert/dataset.py": _rename,
    "no bench_bert/standins/train.py": lambda folder: (folder / "bench_bert/standins/train.py").unlink(),
    "no bench_*/**/backend*.py": lambda folder: (folder / "bench_bert/backend_x.py").unlink(),
    "no tests/test_*.py": lambda folder: shutil.rmtree(folder / "tests"),
    "no bench_*/standins/weights.*": lambda folder: (folder / "bench_bert/standins/weights.npz").unlink(),
    "weights.npz is too large": lambda folder: _fill(folder / "bench_bert/standins/weights.npz"),
    "README.md has no ## Files": _unhead,
    "pyproject.toml lists its packages": lambda folder: _list_packages(folder / "pyproject.toml"),
    "not sorted": lambda folder: _append(folder / "requirements.lock", "aaa==1"),
}


def _list_packages(file: Path) -> None:
    file.write_text('[tool.setuptools]\npackages = ["bench_bert"]\n')


def _fill(file: Path) -> None:
    file.write_bytes(bytes(MAX_WEIGHTS + 1))


def _append(file: Path, line: str) -> None:
    file.write_text(f"{file.read_text()}{line}\n")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A folder that keeps every rule, to be broken."""
    folder = tmp_path / "bert"
    package = folder / "bench_bert"
    for file in [*(folder / name for name in FILES), *(package / f"{module}.py" for module in MODULES)]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"\n{heading}\n" for heading in HEADINGS))
    (folder / "requirements.lock").write_text("# Made by `nox -s lock-bert`\nb==1\n")
    (folder / "pyproject.toml").write_text('[tool.setuptools.packages.find]\ninclude = ["bench_bert*"]\n')
    (folder / "tests").mkdir()
    for name in ("bench_bert/backend_x.py", "bench_bert/standins/weights.npz", "tests/test_x.py"):
        (folder / name).touch()
    return folder


def test_a_whole_folder_passes_and_an_unknown_one_does_not(whole: Path) -> None:
    assert benchmark_faults(whole) == []
    (whole / "bench_bert").rename(whole / "bench_alexnet")
    assert benchmark_faults(whole.rename(whole.with_name("alexnet"))) == ["alexnet is no known benchmark"]


@pytest.mark.parametrize("fault", BREAK)
def test_a_planted_folder_fault_is_caught(fault: str, whole: Path) -> None:
    BREAK[fault](whole)
    assert fault in benchmark_faults(whole)
