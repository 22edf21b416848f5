"""What a command line comes to: resolved once, at the edge, into a frozen `Plan`.

Settings of a test are laid layer on layer (rules, profile, user.conf, command line, audit.config), and say where each
is from.
"""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from loadgen.conf import ConfWarning, models_named, nearest, settings_from
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.assets import cache
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.harness.serving.bucketing import Batching
from loadgen.harness.workers.pool import Workers
from loadgen.rules import ModelRules, Round, load_round, round_names
from loadgen.settings import Mode, Scenario, TestSettings, with_test05_seeds


@dataclass(frozen=True)
class Overrides:
    """What the command line says of a test. None leaves a value as it is."""

    duration_s: float | None = None
    qps: float | None = None
    user_conf: Path | None = None
    audit_conf: Path | None = None
    round: str = "v4.0"

    def __post_init__(self) -> None:
        for name, value in (("--qps", self.qps), ("--duration", self.duration_s)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} {value:g}: give a finite number above 0")


@dataclass(frozen=True)
class Request:
    """What the command line asks for. Empty: the benchmark's default."""

    scenarios: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """Of the rules (datacenter, edge): each stands for the scenarios that it requires."""
    modes: tuple[Mode, ...] = (Mode.PerformanceOnly, Mode.AccuracyOnly)
    profile: str = ""
    backend: str = ""
    device: str = ""
    dtype: str = ""
    batch: int | None = None
    max_wait_ms: float = 0.0
    max_cost: int | None = None
    workers: Workers = field(default_factory=Workers)
    threads: int = 0
    ratio: float | None = None
    output: Path | None = None
    data: Path | None = None
    quiet: bool = False
    trace: bool = False
    drain_timeout_s: float = 600.0
    """How long a test waits for its next answer."""
    missing: bool = False
    """Run only the tests that the output folder has no finished result of."""
    repeat: int = 1
    """How often a performance test runs."""
    find_peak: bool = False
    """Search the rates of Server and Offline first."""
    arguments: tuple[str, ...] = ()
    """The words of the command line, kept so that the run can be resumed."""
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True)
class Layered:
    """Settings, and for every field that a layer changed the name of the last layer that did."""

    settings: TestSettings
    origin: Mapping[str, str]
    notes: tuple[str, ...] = ()
    """What config files say in vain, each with file and line."""

    def then(self, name: str, settings: TestSettings, notes: tuple[str, ...] = ()) -> Layered:
        """The next layer; only fields that it changes get its name."""
        changed = {
            f.name: name for f in fields(settings) if getattr(settings, f.name) != getattr(self.settings, f.name)
        }
        return Layered(settings, {**self.origin, **changed}, self.notes + notes)


@dataclass(frozen=True)
class Plan:
    """One command's work: every name is known, every choice made."""

    benchmark: Benchmark
    request: Request
    profile_name: str
    profile: Profile
    backend_name: str
    backend: BackendSpec
    device: str
    dtype: str
    batch: int
    folder: Path
    """The profile's, with `data/` and `model/` below it."""
    tests: tuple[Layered, ...]
    """In the order in which they run."""
    rules: ModelRules
    ratios: tuple[float, ...]
    """Shares of the reference that an accuracy test is judged by, lowest first."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What config files say in vain, each thing once."""
        return tuple(dict.fromkeys(note for test in self.tests for note in test.notes))

    @property
    def options(self) -> BackendOptions:
        """What each backend is built from, but for the workers' shares of devices and threads."""
        made = {"weights": self.profile.weights} if self.profile.weights else {}
        return BackendOptions(
            model=self.folder / "model",
            devices=(self.device,),
            dtype=self.dtype,
            threads=self.request.threads,
            max_batch=self.batch,
            max_cost=self.request.max_cost,
            extra={**made, **self.profile.model_options},
        )

    @property
    def batching(self) -> Batching:
        asked = self.request
        return Batching(self.batch, asked.max_wait_ms / 1e3, asked.max_cost, self.backend.cost_rule)

    def imported(self, dotted: str, what: str, extra: str = "") -> Any:
        """See `import_name`."""
        return import_name(self.benchmark, dotted, what, extra)


def resolve(benchmark: Benchmark, request: Request) -> Plan:
    """Raises InputError that lists what there is to choose from, and for settings that cannot be."""
    profile_name = _chosen(benchmark, "profile", request.profile, benchmark.profiles)
    profile = benchmark.profiles[profile_name]
    backend_name, backend = _backend(benchmark, request)
    round_ = load_round(request.overrides.round)
    rules = round_.model(benchmark.model)
    ratios = rules.ratios if request.ratio is None else (request.ratio,)
    rules.limits(ratios[0])  # one that the rules do not have is an error now, not after hours
    scenarios = _scenarios(benchmark, request, round_)
    device = request.device or backend.devices[0]
    dtype = request.dtype or backend.dtypes[0]
    _check_backend(backend_name, backend, device, dtype, request.workers)
    _check_threads(request.threads)
    tests = [layered(benchmark, profile, s, mode, request.overrides) for s in scenarios for mode in request.modes]
    return Plan(
        benchmark=benchmark,
        request=request,
        profile_name=profile_name,
        profile=profile,
        backend_name=backend_name,
        backend=backend,
        device=device,
        dtype=dtype,
        batch=request.batch or backend.batch,
        folder=data_folder(benchmark, profile_name, request.data),
        tests=tuple(tests),
        rules=rules,
        ratios=tuple(sorted(ratios)),
    )


def _chosen(benchmark: Benchmark, what: str, asked: str, offered: Mapping[str, Any]) -> str:
    name = asked or next(iter(offered))
    if name not in offered:
        raise InputError(f"{benchmark.name} has no {what} {name!r}: choose {_listed(offered)}")
    return name


def _backend(benchmark: Benchmark, request: Request) -> tuple[str, BackendSpec]:
    """One of the benchmark's, or a class of the user's own by `module:Class`, which itself refuses what it lacks."""
    if ":" not in request.backend:
        name = _chosen(benchmark, "backend", request.backend, benchmark.backends)
        return name, benchmark.backends[name]
    module, _, name = request.backend.partition(":")
    if not request.workers.replicas and not (name and _is_found(module)):
        raise InputError(
            f"--backend {request.backend}: no module {module!r} is found, or no class is named: write module:Class, "
            "and put the module's folder on PYTHONPATH or install its package"
        )
    dtypes = dict.fromkeys(dtype for spec in benchmark.backends.values() for dtype in spec.dtypes)
    return request.backend, BackendSpec(request.backend, dtypes=tuple(dtypes), devices=("cpu", "cuda"), spreads=True)


def _is_found(module: str) -> bool:
    """Without importing it: what it needs may be heavy."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # of the package that it is in; of an empty name
        return False


def _scenarios(benchmark: Benchmark, request: Request, round_: Round) -> list[Scenario]:
    """Those asked for, or all that the benchmark has and the round knows, or no round does."""
    if request.scenarios and request.categories:
        raise InputError("--scenario and --category both choose scenarios: give one of them")
    rules = round_.model(benchmark.model)
    offered = {s.name: s for s in benchmark.scenarios if s in rules.offered or not _in_any_round(benchmark.model, s)}
    names = request.scenarios
    if request.categories:
        required = rules.scenarios
        for category in request.categories:
            if category not in required:
                raise InputError(f"{benchmark.name} has no category {category!r}: choose {_listed(required)}")
        names = tuple(dict.fromkeys(s.name for category in request.categories for s in required[category]))
    spelled = {name.lower(): name for name in offered}
    for name in names:
        if name.lower() not in spelled:
            why = f" ({round_.absent[name]})" if name in round_.absent else ""
            raise InputError(
                f"{benchmark.name} has no scenario {name!r}{why}: choose {_listed(offered)}. The rules ask for no other"
            )
    return [offered[spelled[name.lower()]] for name in dict.fromkeys(names)] or list(offered.values())


def _in_any_round(model: str, scenario: Scenario) -> bool:
    """Or has the benchmark added it by itself, as Llama 2's SingleStream?"""
    rounds = (load_round(name).models for name in round_names())
    return any(scenario in models[model].offered for models in rounds if model in models)


def _check_backend(name: str, backend: BackendSpec, device: str, dtype: str, workers: Workers) -> None:
    kind, _, number = device.partition(":")
    if kind not in backend.devices or not (number or "0").isdecimal():
        numbered = [f"{one} or {one}:N" if one == "cuda" else one for one in backend.devices]
        raise InputError(f"device {device!r}: backend {name} runs on {', '.join(numbered)}")
    if dtype not in backend.dtypes:
        raise InputError(f"dtype {dtype!r}: backend {name} computes in {_listed(backend.dtypes)}")
    if workers.gpus_per_worker > 1 and not backend.spreads:
        raise InputError(f"--gpus-per-worker {workers.gpus_per_worker}: backend {name} keeps a model on one device")


def _check_threads(threads: int) -> None:
    """So many that the machine would only start and stop them are a slip, and take minutes that Ctrl-C cannot end."""
    most = 4 * (os.cpu_count() or 1)
    if threads > most:
        raise InputError(f"--threads {threads}: this machine has {most // 4} processors; give at most {most}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def data_folder(benchmark: Benchmark, profile: str, asked: Path | None) -> Path:
    """Where the profile's files are: the folder asked for, else one in the cache.

    An image says by INFERENCE_BENCH_DATA where official files are mounted; it could not keep what it makes itself.
    """
    if asked is not None:
        return asked
    mounted = os.environ.get("INFERENCE_BENCH_DATA")
    if mounted and benchmark.profiles[profile].is_official:
        return Path(mounted)
    folder = cache.root() / benchmark.name / profile
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def import_name(benchmark: Benchmark, dotted: str, what: str, extra: str = "") -> Any:
    """`"module:name"` or `"module"`. A package that is not installed is an InputError that says how to install it.

    extra: of the benchmark's pyproject, which installs what the module needs.
    """
    module, _, name = dotted.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == module.split(".")[0]:
            raise
        raise InputError(
            f"{what} needs the package {error.name}, which is not installed: "
            f"pip install '{installed(benchmark, extra)}'"
        ) from error
    return member(found, name, what) if name else found


def member(module: Any, name: str, what: str) -> Any:
    """Raises InputError that lists the classes of a module which has not this one."""
    if hasattr(module, name):
        return getattr(module, name)
    classes = [key for key, value in vars(module).items() if isinstance(value, type)]
    raise InputError(f"{what}: {module.__name__} has no {name!r}; its classes are {', '.join(classes) or 'none'}")


def installed(benchmark: Benchmark, extra: str) -> str:
    """What pip installs: the benchmark's folder, with an extra unless that is empty."""
    return f"./benchmarks/{benchmark.name}{f'[{extra}]' if extra else ''}"


def layered(benchmark: Benchmark, profile: Profile, scenario: Scenario, mode: Mode, overrides: Overrides) -> Layered:
    """The settings of one test. Raises InputError."""
    model = benchmark.model
    round_ = load_round(overrides.round)
    layers = Layered(TestSettings(scenario=scenario, mode=mode, revision=round_.revision), {})
    rules = round_.settings(model, scenario, layers.settings)
    layers = layers.then(f"rules {overrides.round}", rules)
    layers = layers.then("profile", replace(layers.settings, **profile.settings.get(scenario, {})))
    if overrides.user_conf:
        layers = _then_file(layers, overrides.user_conf, model, overrides.round)
    layers = layers.then("command line", replace(layers.settings, **_options(scenario, overrides)))
    if overrides.audit_conf:
        layers = _then_file(layers, overrides.audit_conf, "*", overrides.round)
        if layers.settings.test05:
            layers = layers.then(str(overrides.audit_conf), with_test05_seeds(layers.settings))
    return layers


def _then_file(layers: Layered, file: Path, model: str, round_: str) -> Layered:
    """A config file as the next layer. Raises InputError."""
    base, notes = layers.settings, _misnamed(file, model, round_)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConfWarning)
            read = settings_from([file], model, base.scenario, base)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): give the path of a config file") from error
    if read.mode is not base.mode:
        raise InputError(f"{file} sets the mode to {read.mode.name}: remove that line, and choose by --mode")
    return layers.then(str(file), read, (*notes, *(str(one.message) for one in caught)))


def _misnamed(file: Path, model: str, round_: str) -> tuple[str, ...]:
    """Notes on models that the round does not have. Raises InputError for one that is nearly this benchmark's."""
    known = sorted({"*", model, *load_round(round_).models})
    strange = {name: origin for name, origin in models_named(file).items() if name not in known}
    for name, origin in strange.items():
        if nearest(name, known) == model:
            raise InputError(f"{origin}: no model {name!r}, so the line would have no effect: did you mean {model!r}?")
    return tuple(
        f"{origin}: {round_} has no model {name!r}: its lines have no effect" for name, origin in strange.items()
    )


def _options(scenario: Scenario, overrides: Overrides) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if overrides.duration_s is not None:
        changed["min_duration_ms"] = round(overrides.duration_s * 1000)
    rate = {Scenario.Server: "server_target_qps", Scenario.Offline: "offline_expected_qps"}
    if overrides.qps is not None and scenario in rate:
        changed[rate[scenario]] = overrides.qps
    return changed
