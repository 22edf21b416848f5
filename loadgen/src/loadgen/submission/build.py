"""A submission's tree from the folders of runs: nothing is invented, and nothing that is there is overwritten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadgen.errors import InputError
from loadgen.rules import Layout, RulesError
from loadgen.submission.checks.performance import INFERRED_FROM
from loadgen.submission.own_settings import user_conf
from loadgen.submission.reading import read_object
from loadgen.submission.requirements import Needs, Requirements
from loadgen.submission.runs import RunFolder, Test
from loadgen.submission.tree import Place
from loadgen.submission.truncate import accuracy_text, shorten

LOGS = ("mlperf_log_summary.txt", "mlperf_log_detail.txt")
ANSWERS = "mlperf_log_accuracy.json"
_NOT_CODE = ("__pycache__", "*.pyc", ".*", "results", "build", "*.egg-info", "requirements.lock.tmp")


@dataclass(frozen=True)
class Order:
    """What is to be built."""

    output: Path
    """The root of the tree; it may hold other systems, and other submitters' folders, already."""
    division: str
    submitter: str
    system: str
    """Name of its folder."""
    description: Mapping[str, str]
    implementation: str
    measurements: Mapping[str, str]
    """The five fields on weights and data types."""
    code: Path
    """Folder of what was run."""
    infers: bool = True
    """May a stream's run stand for other scenarios on edge?"""
    ratios: tuple[float, ...] = ()
    """Shares of the reference that are claimed; empty: all that every accuracy test met."""
    notes: list[str] = field(default_factory=list)
    """What a person should know, added while building."""

    @property
    def above(self) -> Path:
        return self.output / self.division / self.submitter

    def place(self, layout: Layout, model: str, scenario: str) -> Place:
        return Place(self.division, self.submitter, self.system, model, scenario, layout)


def build(order: Order, runs: Sequence[RunFolder]) -> list[Path]:
    """Write the tree; returns the results' folders. Raises InputError before anything is written if it cannot be."""
    (round_name,) = _only({run.round for run in runs}, "rounds")
    requirements = Requirements(round_name)
    _check(order, requirements)
    jobs = [job for run in runs for job in _jobs(order, requirements, run)]
    twice = [job.results for job in jobs if job.results.exists()]
    doubled = {job.name for job in jobs if [one.name for one in jobs].count(job.name) > 1}
    if twice or doubled:
        what = twice[0] if twice else f"{' '.join(sorted(doubled)[0])} of several runs"
        raise InputError(f"{what} is there already: remove it, or build into another folder")
    described = order.above / "systems" / f"{order.system}.json"
    _check_description(order, described)
    for job in jobs:
        _write(order, requirements, job)
    described.parent.mkdir(parents=True, exist_ok=True)
    described.write_text(_json(order.description), encoding="utf-8")
    return [job.results for job in jobs]


def _check_description(order: Order, file: Path) -> None:
    """Results of one system have one description."""
    there, _ = read_object(file)
    for name, value in (there or {}).items():
        if order.description.get(name) != value:
            raise InputError(
                f"{file} says {name} = {value!r}, and now it is {order.description.get(name)!r}: "
                f"keep it by --description {file}, or choose another --system"
            )


def _only(values: set[str], what: str) -> tuple[str]:
    if len(values) != 1:
        raise InputError(f"the runs follow several {what} ({', '.join(sorted(values))}): build each for itself")
    (value,) = values
    return (value,)


def _check(order: Order, requirements: Requirements) -> None:
    tree = requirements.tree
    if order.division not in tree.divisions:
        raise InputError(f"--division {order.division}: choose {', '.join(tree.divisions)}")
    for option, name in (
        ("--submitter", order.submitter),
        ("--system", order.system),
        ("--implementation", order.implementation),
    ):
        if not name or "/" in name or " " in name or name.startswith("."):
            raise InputError(f"{option} {name!r}: a folder's name, without spaces, slashes and a dot in front")
    missing = [name for name in tree.implementation_fields if not order.measurements.get(name)]
    if missing:
        raise InputError("say of the weights: " + ", ".join(f"--set {name}=..." for name in missing))
    if not order.code.is_dir():
        raise InputError(f"--code {order.code}: give the folder of the code that was run")


@dataclass(frozen=True)
class _Job:
    """One result to write: of a scenario, or of another that it stands for."""

    run: RunFolder
    needs: Needs
    root: Path
    place: Place
    performance: Test
    accuracy: Test

    @property
    def scenario(self) -> str:
        return self.place.folder

    @property
    def name(self) -> tuple[str, str]:
        return self.needs.name, self.scenario

    @property
    def results(self) -> Path:
        return self.root / self.place.path


def _jobs(order: Order, requirements: Requirements, run: RunFolder) -> Iterator[_Job]:
    tests = {(test.scenario, test.mode): test for test in run.tests}
    pairs = {}
    for scenario in dict.fromkeys(test.scenario for test in run.tests):
        performance, accuracy = (tests.get((scenario, mode)) for mode in ("PerformanceOnly", "AccuracyOnly"))
        if performance is None or accuracy is None:
            lacks = "performance" if performance is None else "accuracy"
            raise InputError(f"{run.folder}: {scenario} has no {lacks} test: run it, into the same folder")
        pairs[scenario] = (performance, accuracy)
    for needs in _claimed(order, requirements, run, [accuracy for _, accuracy in pairs.values()]):
        for scenario, source in _scenarios(order, requirements, needs, list(pairs)).items():
            if scenario == "MultiStream" != source and not pairs[source][0].metrics.get("early_stopping_latency_ms"):
                order.notes.append(f"{needs.name}: {source} has too few queries to infer {scenario} from: run longer")
            place = order.place(requirements.tree.layout, needs.name, scenario)
            yield _Job(run, needs, order.output, place, *pairs[source])


def _claimed(order: Order, requirements: Requirements, run: RunFolder, tests: Sequence[Test]) -> Iterator[Needs]:
    """The results' names: one for each share of the reference that is claimed, or that all tests met."""
    if run.model not in requirements.round.models:
        raise RulesError(f"{run.folder}: round {requirements.round.name} has no model {run.model}")
    kind = order.description["system_type"]
    offered = [one for one in requirements.benchmarks.values() if one.rules.model == run.model and one.required(kind)]
    if not offered:
        raise InputError(f"{run.model} has no results in the category {kind}: change --set system_type=...")
    met = [one for one in offered if all(one.ratio in test.met for test in tests)]
    chosen = [one for one in offered if one.ratio in order.ratios] if order.ratios else met or offered[:1]
    if not chosen:
        raise InputError(f"--ratio: {run.model} offers {', '.join(f'{one.ratio:g}' for one in offered)} in {kind}")
    if not met:
        order.notes.append(f"{run.folder}: no share of the reference was met by every accuracy test")
    yield from chosen


def _scenarios(order: Order, requirements: Requirements, needs: Needs, ran: list[str]) -> dict[str, str]:
    """Scenario to submit -> scenario whose run is taken."""
    kind = order.description["system_type"]
    required = needs.required(kind) or frozenset()
    known = required | needs.optional(kind)
    chosen = {scenario: scenario for scenario in ran if scenario in known or order.division == "open"}
    order.notes.extend(
        f"{needs.name}: {one} is not asked for on {kind}, and left out" for one in ran if one not in chosen
    )
    some = needs.one_of(kind)
    if some and not some & set(chosen):
        order.notes.append(f"{needs.name}: {' or '.join(sorted(some))} is required on {kind} and was not run")
    for scenario in sorted(required - set(chosen)):
        source = next((one for one in INFERRED_FROM.get(scenario, ()) if one in chosen), None)
        if kind == "edge" and order.infers and source:
            chosen[scenario] = source
            order.notes.append(f"{needs.name}: {scenario} is inferred from {source}")
        else:
            order.notes.append(f"{needs.name}: {scenario} is required on {kind} and was not run")
    return chosen


def _write(order: Order, requirements: Requirements, job: _Job) -> None:
    run_1, accuracy = job.results / "performance" / "run_1", job.results / "accuracy"
    _copy(job.performance.folder, run_1, LOGS)
    _copy(job.accuracy.folder, accuracy, (*LOGS, "accuracy.txt"))
    _answers(job.accuracy.folder / ANSWERS, accuracy)
    if job.needs.rules.images:
        _images(order, job, accuracy / "images")
    _session(job)
    _measurements(order, requirements, job)
    _code(order, job)
    _compliance(order, job)


def _copy(source: Path, to: Path, names: Sequence[str]) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            shutil.copyfile(source / name, to / name)
        except OSError as error:
            raise InputError(f"{source / name}: {error.strerror}: run that test again") from error


def _answers(log: Path, to: Path) -> None:
    """The log shortened, and its hash in accuracy.txt, if that is there."""
    try:
        hash_ = shorten(log, to / log.name)
    except OSError as error:
        raise InputError(f"{log}: {error.strerror}: run that test again") from error
    text = to / "accuracy.txt"
    said = text.read_text(encoding="utf-8", errors="replace") if text.is_file() else ""
    text.write_text(accuracy_text(said, hash_), encoding="utf-8")


def _images(order: Order, job: _Job, to: Path) -> None:
    """Those that the round names, and their captions, from the accuracy test's own images."""
    source = job.accuracy.folder / "images"
    wanted = [f"{number}.png" for number in job.needs.rules.images] + ["captions.txt"]
    there = [name for name in wanted if (source / name).is_file()]
    if there:
        _copy(source, to, there)
    if len(there) < len(wanted):
        order.notes.append(f"{source}: without {', '.join(name for name in wanted if name not in there)}")


def _session(job: _Job) -> None:
    """What a power session left beside the performance test: power/, ranging/ and the meter's samples."""
    source, to = job.performance.folder, job.results / "performance"
    if not (source / "power").is_dir():
        return
    for name in ("power", "ranging"):
        shutil.copytree(source / name, to / name)
    _copy(source, to / "run_1", ("spl.txt",))


def _measurements(order: Order, requirements: Requirements, job: _Job) -> None:
    to, layout = order.output / job.place.measurements, requirements.tree.layout
    to.mkdir(parents=True, exist_ok=True)
    own = layout.measurements_file.format(
        system=order.system, implementation=order.implementation, scenario=job.scenario
    )
    texts = {
        "mlperf.conf": requirements.round.conf_text(),
        "user.conf": user_conf(job.run.model, job.performance),
        "README.md": _readme(order, job),
        own: _json(dict(order.measurements)),
    }
    for name in (*requirements.tree.measurement_files, own):
        (to / name).write_text(texts[name], encoding="utf-8")


def _readme(order: Order, job: _Job) -> str:
    options = "\n".join(f"- {name}: {value}" for name, value in job.run.options.items())
    machine = "\n".join(f"- {name}: {value}" for name, value in job.run.machine.items())
    command = " ".join(["python -m", f"bench_{job.run.benchmark}", *job.run.arguments])
    return (
        f"# {job.needs.name}, {job.scenario}\n\nRun by\n\n```sh\n{command}\n```\n\n"
        f"Profile: {job.run.profile}. Implementation: {order.implementation}.\n\n"
        f"## Options\n\n{options}\n\n## Machine\n\n{machine}\n"
    )


def _code(order: Order, job: _Job) -> None:
    """The folder once; a model's other result names have a file that says where."""
    place = order.output / job.place.code / job.needs.name
    if place.exists():
        return
    named_alike = sorted(place.parent.glob(f"{job.needs.rules.benchmark}*"))
    same = [one for one in named_alike if (one / order.implementation).is_dir()]
    place.parent.mkdir(parents=True, exist_ok=True)
    if same:
        place.write_text(f"{same[0].name}\n", encoding="utf-8")
        return
    shutil.copytree(order.code, place / order.implementation, ignore=shutil.ignore_patterns(*_NOT_CODE))


def _compliance(order: Order, job: _Job) -> None:
    """What `comply` placed in the run's folder, its answers shortened."""
    tests = job.needs.rules.compliance
    if order.division == "open" or not tests:
        return
    source = job.run.folder / "compliance" / job.performance.scenario
    if not source.is_dir():
        order.notes.append(f"{job.needs.name}, {job.scenario}: no {', '.join(tests)} yet: `comply` runs them")
        return
    to = order.output / job.place.compliance
    shutil.copytree(source, to, dirs_exist_ok=True)
    log = to / "TEST01" / "accuracy" / ANSWERS
    if log.is_file():
        _answers(log, log.parent)
    for answers in to.glob("TEST*/performance/run_1/" + ANSWERS):
        answers.unlink()  # optional, and large


def _json(data: Mapping[str, str]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
