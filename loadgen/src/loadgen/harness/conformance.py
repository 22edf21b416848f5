"""What every benchmark folder must do, as checks that its own tests run.

    @pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
    def test_conformance(check: Check, tmp_path: Path) -> None:
        check(tmp_path)

A check fails by an AssertionError that says what is forgotten, the quick ones first. It is not in `loadgen.testing`,
whose fakes serve the core too, because the core does not know the harness.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from loadgen.contracts import BackendOptions
from loadgen.harness.assets.asset import Asset
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.cli import invoke
from loadgen.harness.plan import Request, resolve
from loadgen.harness.scoring import open_dataset
from loadgen.harness.standins.making import provide
from loadgen.rules import load_round
from loadgen.settings import Scenario, TestSettings
from loadgen.submission.check import check

PROFILES = ("mini", "synthetic", "full")
HEAVY = ("numpy", "rich", "torch", "tensorflow", "onnx", "onnxruntime", "transformers", "scipy", "cv2")
"""What `--help` must not import."""
_SHORT = ["--duration", "0.2", "--threads", "1"]


@dataclass(frozen=True)
class Check:
    """One thing that is checked; its name is the test's."""

    name: str
    function: Callable[[Path], None]

    def __call__(self, folder: Path) -> None:
        """folder: an empty one, to write in."""
        self.function(folder)

    def __str__(self) -> str:
        return self.name


def conformance(benchmark: Benchmark) -> list[Check]:
    """All checks of a benchmark; each stands alone."""
    checks = {
        "nothing is forgotten": _whole,
        "names import": _names,
        "rules and literal agree": _rules,
        "assets are checkable": _assets,
        "help is light": _help,
        "full profile lists what is missing": _missing,
        "device and dtype are refused": _refusals,
    }
    listed = [Check(name, partial(check, benchmark)) for name, check in checks.items()]
    if "mini" not in benchmark.profiles:
        return listed
    runs = {"dataset keeps its contract": partial(_dataset, benchmark)}
    runs |= {f"{s.name} is VALID": partial(_scenario, benchmark, s.name) for s in benchmark.scenarios}
    runs["a compliance test is judged and placed"] = partial(_compliance, benchmark)
    for name in benchmark.backends:
        runs[f"{name} meets the target"] = partial(_backend, benchmark, name)
        if benchmark.backends[name].file:
            runs[f"{name} refuses damaged weights"] = partial(_weights, benchmark, name)
    runs["damaged data are refused"] = partial(_data, benchmark)
    miniature = _Miniature(benchmark)
    return [*listed, *(Check(name, partial(miniature.given, check)) for name, check in runs.items())]


@dataclass
class _Miniature:
    """The files of the profile `mini`: made once, and copied for each check, which may damage them."""

    benchmark: Benchmark
    made: Path | None = None

    def given(self, check: Callable[[Path], None], folder: Path) -> None:
        """Do a check that reads `folder / "mini"`."""
        if self.made is None or not self.made.is_dir():
            _prepared(self.benchmark, "", folder)
            self.made = shutil.copytree(folder / "mini", folder / "made")
        else:
            shutil.copytree(self.made, folder / "mini")
        check(folder)


def _whole(benchmark: Benchmark, _: Path) -> None:
    """Entries that a folder needs, and that nothing else asks for before a long run does."""
    for name in PROFILES:
        assert name in benchmark.profiles, f"benchmark.py has no profile {name!r}"
    for name, profile in benchmark.profiles.items():
        assert profile.summary, f"profile {name} has no summary"
        if profile.is_official:
            assert profile.assets, f"profile {name} is official and lists no assets: fetch has nothing to get"
        else:
            assert profile.samples, f"profile {name} does not say how many samples it has"
    assert benchmark.profiles["full"].is_official, "the profile full is not marked is_official"
    assert benchmark.profiles["mini"].reference, "the miniature has no reference score to be judged by"
    for name, spec in benchmark.backends.items():
        assert spec.extra, f"backend {name} does not say which extra installs it"
    assert benchmark.train, "benchmark.py does not say how the miniature is trained (train)"
    for scenario in benchmark.scenarios:
        assert scenario in benchmark.profiles["mini"].settings, f"the miniature has no settings for {scenario.name}"


def _dotted(benchmark: Benchmark) -> Iterator[str]:
    yield from (benchmark.dataset, benchmark.system, benchmark.train)
    yield from (f"{benchmark.postprocess}:encode", f"{benchmark.postprocess}:decode", f"{benchmark.accuracy}:score")
    yield from (spec.name for spec in benchmark.backends.values())
    for profile in benchmark.profiles.values():
        yield from (profile.prepare, profile.weights, profile.assets)
        if isinstance(profile.memory_gb, str):
            yield profile.memory_gb


def _names(benchmark: Benchmark, folder: Path) -> None:
    for dotted in filter(None, _dotted(benchmark)):
        module, _, name = dotted.partition(":")
        found = importlib.import_module(module)
        assert hasattr(found, name), f"{dotted}: {module} has no {name}"


def _rules(benchmark: Benchmark, _: Path) -> None:
    rules = load_round("v4.0").model(benchmark.model)
    required = {scenario for scenarios in rules.scenarios.values() for scenario in scenarios}
    assert required <= set(benchmark.scenarios), f"the rules require {required - set(benchmark.scenarios)} too"
    known = {field.name for field in fields(TestSettings)}
    for name, profile in benchmark.profiles.items():
        for metric in (*profile.reference, *profile.limits):
            assert metric in rules.metrics, (
                f"profile {name}: {metric!r} is not judged; the rules judge {[*rules.metrics]}"
            )
        for scenario, settings in profile.settings.items():
            assert scenario in benchmark.scenarios, f"profile {name} sets {scenario.name}, which is not offered"
            assert set(settings) <= known, f"profile {name}, {scenario.name}: {set(settings) - known} are not settings"


def _assets(benchmark: Benchmark, _: Path) -> None:
    for name, profile in benchmark.profiles.items():
        for asset in _listed(profile):
            where = f"profile {name}, {asset.path}"
            assert asset.path.split("/")[0] in ("data", "model"), f"{where}: goes neither to data/ nor to model/"
            reach = asset.address or asset.listing or asset.gate
            assert reach, f"{where}: neither an address nor what a person has to do"
            assert asset.licence, f"{where}: no licence"
            assert asset.has_checksum or asset.bytes or asset.gate, f"{where}: nothing to check it by"
            assert set(asset.backends) <= set(benchmark.backends), f"{where}: unknown backend in {asset.backends}"


def _listed(profile: Profile) -> list[Asset]:
    if not profile.assets:
        return []
    module, _, name = profile.assets.partition(":")
    return list(getattr(importlib.import_module(module), name))


def _help(benchmark: Benchmark, _: Path) -> None:
    code = (
        "import sys\n"
        f"from bench_{benchmark.name}.__main__ import BENCHMARK\n"
        "from loadgen.harness.cli import invoke\n"
        "assert invoke(BENCHMARK, ['run', '--help']) == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("[]\n"), f"--help imports {done.stdout.splitlines()[-1:]} {done.stderr[-500:]}"


def _dataset(benchmark: Benchmark, folder: Path) -> None:
    plan = resolve(benchmark, Request(profile="mini", data=folder / "mini"))
    dataset = open_dataset(plan)
    assert dataset.total_count == plan.profile.samples, f"the dataset has {dataset.total_count} samples"
    count = min(8, dataset.total_count, dataset.performance_count)
    indices = np.arange(count)
    dataset.load(indices.tolist())
    costs = dataset.costs(indices[::-1])
    assert costs.shape == (count,), f"costs of {count} samples have the shape {costs.shape}"
    assert costs.dtype == np.int64, f"costs are {costs.dtype}"
    assert (costs > 0).all(), "a cost is not above 0"
    assert (costs == np.concatenate([dataset.costs(indices[at : at + 1]) for at in reversed(range(count))])).all()
    dataset.gather(indices[::-1])
    dataset.unload(indices.tolist())


def _missing(benchmark: Benchmark, folder: Path) -> None:
    code, said = _invoked(benchmark, ["run", "--profile", "full", "--data", str(folder / "none")], folder)
    assert code == 2, f"exit code {code}: {said}"
    assert "Traceback" not in said, said
    plan = resolve(benchmark, Request(profile="full", data=folder))
    needed = [asset for asset in _listed(plan.profile) if asset.is_needed(plan.backend_name, plan.dtype)]
    for asset in needed:
        assert Path(asset.path).name in said, f"{asset.path} is missing, and not named: {said}"


def _refusals(benchmark: Benchmark, folder: Path) -> None:
    for name, spec in benchmark.backends.items():
        for option, value in (("--device", "abacus"), ("--device", "cuda:99"), ("--dtype", "float7")):
            if value == "cuda:99" and "cuda" not in spec.devices:
                continue
            run = ["run", "--backend", name, option, value, "--data", str(folder / "mini")]
            code, said = _invoked(benchmark, run, folder)
            assert code == 2, f"{name} {option} {value}: exit code {code}: {said}"
            assert value in said, f"{name} {option} {value}: {said}"
            assert "Traceback" not in said, said


def _scenario(benchmark: Benchmark, scenario: str, folder: Path) -> None:
    """Both modes into one folder, and a submission from that."""
    run = ["run", "--scenario", scenario, *_SHORT, "--data", str(folder / "mini")]
    whole_in_a_second = ["--qps", str(benchmark.profiles["mini"].samples)]  # how fast Server asks for every sample
    for mode in (["performance"], ["accuracy", *whole_in_a_second]):
        code, said = _invoked(benchmark, [*run, "--mode", *mode], folder, anew=mode == ["performance"])
        assert code == 0, f"exit code {code}: {said}"
        *_, test = json.loads((folder / "out" / "results.json").read_text())["tests"]
        assert test["valid"], said
    _submission(benchmark, scenario, folder)


_TOO_SMALL = set(
    "accuracy-samples sample-count offline-samples min-duration target-latency token-latency token-limits percentile "
    "multistream-size early-stopping scenario-missing compliance-missing score-low score-high accuracy-images".split()
)
"""Rules that a miniature's results may break. Every other is broken by a file that is not as it should be."""


def _submission(benchmark: Benchmark, scenario: str, folder: Path) -> None:
    rules, kinds = load_round("v4.0").model(benchmark.model), ("datacenter", "edge")
    category = next((one for one in kinds if Scenario[scenario] in rules.scenarios.get(one, ())), None)
    if category is None:
        return  # offered besides what the rules ask for
    tree = load_round("v4.0").submission
    fields = [f"--set={name}=N/A" for name in (*tree.system_fields, *tree.implementation_fields)]
    fields += [f"--set=system_type={category}", "--set=status=available"]
    where = ["--trial", "--submitter", "Org", "--system", "box", "--no-infer", "--code", str(folder / "code")]
    (folder / "code").mkdir()
    (folder / "code" / "main.py").touch()
    built = ["submission", "build", str(folder / "out"), *where, *fields]
    code, said = _invoked(benchmark, built, folder / "submission")
    assert code == 0, f"exit code {code}: {said}"
    found = check(folder / "submission" / "out").findings
    assert {finding.rule for finding in found} <= _TOO_SMALL, f"a submission of {scenario}: {found}"


def _compliance(benchmark: Benchmark, folder: Path) -> None:
    """The first that the rules ask for, TEST01 if there is none. A run as short as this has no performance to judge."""
    test = (*load_round("v4.0").model(benchmark.model).compliance, "TEST01")[0]
    run = ["comply", "--tests", test, "--scenario", "Offline", *_SHORT, "--data", str(folder / "mini")]
    code, said = _invoked(benchmark, run, folder)
    assert code in (0, 1), f"exit code {code}: {said}"
    (found,) = json.loads((folder / "out" / "compliance.json").read_text())
    passed = {check["name"]: check["passed"] for check in found["checks"]}
    judged = {name for name, met in passed.items() if met or name == "performance"}
    judged |= {"accuracy"} if passed.get("score") else set()  # answers may differ, if their score does not
    assert judged == set(passed), found["checks"]
    for name in ("performance/run_1/mlperf_log_detail.txt", "accuracy/mlperf_log_accuracy.json", "verify_accuracy.txt"):
        assert (folder / "out" / "compliance" / "Offline" / test / name).is_file(), f"{test} has no {name}"


def _backend(benchmark: Benchmark, name: str, folder: Path) -> None:
    run = ["run", "--backend", name, "--scenario", "Offline", "--mode", "accuracy", "--threads", "1"]
    code, said = _invoked(benchmark, [*run, "--data", str(folder / "mini")], folder)
    assert code == 0, f"exit code {code}: {said}"


def _weights(benchmark: Benchmark, name: str, folder: Path) -> None:
    """Cut off, and of another kind."""
    options = _prepared(benchmark, name, folder)
    file = provide(options.model / benchmark.backends[name].file, options)
    whole = file.read_bytes()
    for bad in (whole[: len(whole) // 2], b"\x00\x01 not weights " * 100):
        file.write_bytes(bad)
        run = ["run", "--backend", name, "--scenario", "Offline", "--mode", "accuracy", "--data", str(folder / "mini")]
        code, said = _invoked(benchmark, run, folder)
        assert code == 2, f"exit code {code}: {said}"
        assert file.name.split(".")[0] in said, f"{file.name} is not named: {said}"
        assert "Traceback" not in said, said


def _prepared(benchmark: Benchmark, backend: str, folder: Path) -> BackendOptions:
    plan = resolve(benchmark, Request(profile="mini", backend=backend, data=folder / "mini"))
    plan.imported(plan.profile.prepare, "the profile")(plan.folder)
    return plan.options


def _data(benchmark: Benchmark, folder: Path) -> None:
    """A file of each kind, empty, cut off and missing: each is an error that names it."""
    _prepared(benchmark, "", folder)
    place = folder / "mini" / "data"
    kinds = {file.suffix: file for file in sorted(place.rglob("*"), reverse=True) if file.is_file()}
    assert kinds, "the miniature has no data"
    for file in kinds.values():
        whole = file.read_bytes()
        for bad in (b"", whole[: len(whole) // 3], None):
            file.unlink()
            if bad is not None:
                file.write_bytes(bad)
            run = ["run", "--scenario", "Offline", "--mode", "accuracy", "--data", str(folder / "mini")]
            code, said = _invoked(benchmark, run, folder)
            assert code == 2, f"{file.name} {'missing' if bad is None else f'of {len(bad)} bytes'}: {code}: {said}"
            assert file.stem in said, f"{file.name} is not named: {said}"
            assert "Traceback" not in said, said
        file.write_bytes(whole)


def _invoked(benchmark: Benchmark, arguments: list[str], folder: Path, anew: bool = True) -> tuple[int, str]:
    """(exit code, what was printed) of a run whose results go to folder / "out", which is emptied first if anew."""
    if anew:
        shutil.rmtree(folder / "out", ignore_errors=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = invoke(benchmark, [*arguments, "--output", str(folder / "out")])
    return code, said.getvalue()
