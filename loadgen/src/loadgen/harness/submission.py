"""The commands on submissions: of every benchmark's command line, and of `python -m loadgen`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadgen.harness.exits import EXITS

if TYPE_CHECKING:
    from loadgen.submission.build import Order
    from loadgen.submission.requirements import Requirements
    from loadgen.submission.runs import RunFolder

_HELP = """Build a submission, check it, write its tables.

A submission holds the results of one round: <division>/<submitter>/{systems,code,measurements,results,compliance},
or, from v6.0 on, <division>/<submitter>/{systems,src,results}.
"""
_FOLDER = click.Path(path_type=Path)
_AS_OFFICIAL = "The official v4.0 checker's verdicts, its defects too, and each place where the strict check differs."
_SET = "A field of the system's description, or one of those on weights, as name=value; repeatable."
_TRIAL = "Build from runs that are no benchmark results too, to see what a checker says."


def add(above: click.Group, benchmark: str = "") -> None:
    """Put the group `submission` into another. benchmark: whose code is built from, unless another is given."""

    @above.group("submission", help=_HELP, epilog=EXITS["submission"])
    def group() -> None: ...

    for command in (_build, _check, _summary, _system, _truncate, _energy, _rules):
        command(group, benchmark)


def main(arguments: Sequence[str]) -> int:
    """`python -m loadgen submission ...`; returns the exit code."""
    from loadgen.harness.cli import guarded

    root = click.Group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
    add(root)
    return guarded(root, list(arguments), "python -m loadgen")


def _build(group: click.Group, benchmark: str) -> None:
    @group.command(
        "build",
        help="Build the tree from the folders of runs: of one system, and one round.",
        epilog=EXITS["submission build"],
    )
    @click.argument("runs", nargs=-1, required=True, type=_FOLDER)
    @click.option("--output", type=_FOLDER, required=True, help="The submission's root; other systems in it stay.")
    @click.option("--submitter", required=True, help="Name of the submitter's folder.")
    @click.option("--division", default="closed", show_default=True, help="closed, open or network.")
    @click.option("--system", required=True, help="Name of the system's folder.")
    @click.option("--description", type=_FOLDER, help="A JSON file with fields of the system's description.")
    @click.option("--set", "fields", multiple=True, metavar="NAME=VALUE", help=_SET)
    @click.option("--implementation", default="", help="Name of the code's folder; by default the backend's.")
    @click.option("--code", type=_FOLDER, help="Folder of the code that was run; by default the benchmark's own.")
    @click.option("--ratio", "ratios", type=float, multiple=True, help="Claim this share of the reference; repeatable.")
    @click.option("--no-infer", is_flag=True, help="On edge, infer nothing from a stream's run.")
    @click.option("--trial", is_flag=True, help=_TRIAL)
    def _(runs: tuple[Path, ...], trial: bool, **options: Any) -> int:
        return build_tree(runs, benchmark, trial, **options)


def build_tree(
    runs: Sequence[Path],
    benchmark: str,
    trial: bool,
    *,
    output: Path,
    submitter: str,
    division: str,
    system: str,
    description: Path | None,
    fields: Sequence[str],
    implementation: str,
    code: Path | None,
    ratios: tuple[float, ...],
    no_infer: bool,
) -> int:
    """See the command's options. Raises InputError."""
    from loadgen.contracts import InputError
    from loadgen.submission.build import Order, build
    from loadgen.submission.describe import read_description
    from loadgen.submission.requirements import Requirements
    from loadgen.submission.runs import read_run

    read = [read_run(folder) for folder in runs]
    for run in read:
        if run.shortfalls and not trial:
            raise InputError(f"{run.folder} is no benchmark result: {run.shortfalls[0]}. --trial builds one from it")
    requirements = Requirements(read[0].round)
    told = {**(read_description(description) if description else {}), **_pairs(fields)}
    told |= {"submitter": submitter, "division": division}
    weights = {"weight_data_types": str(read[0].options.get("dtype used", ""))}
    weights |= {name: told.pop(name) for name in requirements.tree.implementation_fields if name in told}
    described, weights = _described(requirements, told, weights, read)
    order = Order(
        output=output,
        division=division,
        submitter=submitter,
        system=system,
        description=described,
        implementation=implementation or str(read[0].options.get("backend", "")).rsplit(":", 1)[-1],
        measurements=weights,
        code=code or _own_code(benchmark),
        infers=not no_infer,
        ratios=ratios,
    )
    return _report(order, read[0].round, build(order, read))


def _report(order: Order, round_name: str, results: Sequence[Path]) -> int:
    for result in results:
        click.echo(result)
    for note in dict.fromkeys(order.notes):
        click.echo(f"note: {note}", err=True)
    click.echo(f"check it: python -m loadgen submission check {order.output} --round {round_name}", err=True)
    return 0


def _described(
    requirements: Requirements, told: Mapping[str, str], weights: Mapping[str, str], runs: Sequence[RunFolder]
) -> tuple[dict[str, str], dict[str, str]]:
    """The description of the system and that of the weights. What is missing is asked for, at a terminal one by one."""
    from loadgen.submission.describe import HINTS, complete, found_by, missing_fields

    found, asked, of_weights = found_by(runs), dict(told), dict(weights)
    unsaid = [name for name in requirements.tree.implementation_fields if not weights.get(name)]
    if sys.stdin.isatty():
        for name in missing_fields(requirements, {**found, **told}):
            asked[name] = click.prompt(f"{name}{f' ({HINTS[name]})' if name in HINTS else ''}")
        of_weights |= {name: click.prompt(f"{name} (of the weights)") for name in unsaid}
        unsaid = []
    return complete(requirements, asked, found, unsaid), of_weights


def _own_code(benchmark: str) -> Path:
    """The folder of a benchmark's package."""
    from loadgen.contracts import InputError

    found = importlib.util.find_spec(f"bench_{benchmark}") if benchmark else None
    if found is None or found.origin is None:
        raise InputError("say by --code which folder's code was run")
    return Path(found.origin).parent


def _pairs(fields: Sequence[str]) -> dict[str, str]:
    for field in fields:
        if "=" not in field:
            raise click.BadParameter(f"{field!r}: give name=value", param_hint="--set")
    return {name: value for name, _, value in (field.partition("=") for field in fields)}


def _check(group: click.Group, benchmark: str) -> None:
    @group.command(
        "check",
        help="Check a submission, or any folder in one; exit code 1 if it does not pass.",
        epilog=EXITS["submission check"],
    )
    @click.argument("folder", type=_FOLDER)
    @click.option("--round", "round_", default="v4.0", show_default=True, help="Rules to check by.")
    @click.option("--as-official-v4.0", "as_official", is_flag=True, help=_AS_OFFICIAL)
    @click.option("--format", "form", type=click.Choice(["text", "json", "sarif", "html"]), default="text")
    @click.option("--output", type=_FOLDER, help="Write it to this file.")
    def _(folder: Path, round_: str, as_official: bool, form: str, output: Path | None) -> int:
        from loadgen.contracts import InputError
        from loadgen.submission import page, shown
        from loadgen.submission.check import check
        from loadgen.submission.official import verdicts

        if as_official and round_ != "v4.0":
            raise InputError("--as-official-v4.0 follows the rules of v4.0 only: leave --round away")
        checked = check(folder, round_)
        forms: dict[str, Callable[[], str]] = {
            "text": lambda: shown.text(checked, as_official),
            "json": lambda: shown.as_json(checked, as_official),
            "sarif": lambda: shown.sarif(checked),
            "html": lambda: page.check_page(checked, as_official),
        }
        _say(forms[form](), output)
        return 0 if (verdicts(checked).passes if as_official else checked.passes) else 1


def _say(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        click.echo(output)


def _summary(group: click.Group, benchmark: str) -> None:
    @group.command(
        "summary",
        help="Write summary.csv, summary.xlsx and summary.html of the results that pass.",
        epilog=EXITS["submission summary"],
    )
    @click.argument("folder", type=_FOLDER)
    @click.option("--round", "round_", default="v4.0", show_default=True, help="Rules to check by.")
    @click.option("--output", type=_FOLDER, default=Path(), help="Folder to write to; by default this one.")
    def _(folder: Path, round_: str, output: Path) -> int:
        from loadgen.contracts import InputError
        from loadgen.submission import page, table, workbook
        from loadgen.submission.check import check

        checked = check(folder, round_)
        lines = table.lines(checked)
        models = list(checked.requirements.benchmarks)
        refused = sum(checked.refuses(row.place) for row in checked.rows)
        output.mkdir(parents=True, exist_ok=True)
        (output / "summary.csv").write_text(table.csv(lines), encoding="utf-8")
        (output / "summary.html").write_text(page.summary_page(lines, round_, refused), encoding="utf-8")
        for name in ("csv", "html"):
            click.echo(output / f"summary.{name}")
        try:
            (output / "summary.xlsx").write_bytes(workbook.workbook(lines, models, round_))
            click.echo(output / "summary.xlsx")
        except InputError as error:  # its package is not installed
            click.echo(f"note: {error}", err=True)
        if refused:
            click.echo(f"{refused} of {len(checked.rows)} results are refused, and not in the tables", err=True)
        return 1 if refused else 0


def _system(group: click.Group, benchmark: str) -> None:
    @group.command(
        "system",
        help="Print what this machine says of itself, and which fields a person has to give.",
        epilog=EXITS["submission system"],
    )
    @click.option("--round", "round_", default="v4.0", show_default=True, help="Rules whose fields are asked for.")
    @click.option("--output", type=_FOLDER, help="Write the fields to this JSON file, those to be given empty.")
    def _(round_: str, output: Path | None) -> int:
        import json

        from loadgen.harness.machine.description import describe
        from loadgen.harness.machine.telemetry import find_gpus
        from loadgen.submission.describe import HINTS, missing_fields
        from loadgen.submission.requirements import Requirements

        requirements, found = Requirements(round_), describe(find_gpus()[0])
        missing = missing_fields(requirements, found)
        if output is None:
            click.echo("".join(f"{name} = {value}\n" for name, value in found.items()), nl=False)
        else:
            fields = {name: found.get(name, "") for name in requirements.tree.system_fields}
            _say(json.dumps(fields, indent=2) + "\n", output)
        for name in missing:
            click.echo(f"to be given: {name}{f' ({HINTS[name]})' if name in HINTS else ''}", err=True)
        return 0


def _truncate(group: click.Group, benchmark: str) -> None:
    @group.command(
        "truncate",
        help="Shorten the accuracy logs of a submission, and note the hash of each.",
        epilog=EXITS["submission truncate"],
    )
    @click.argument("folder", type=_FOLDER)
    @click.option("--backup", type=_FOLDER, required=True, help="Folder for the whole logs: they may be asked for.")
    def _(folder: Path, backup: Path) -> int:
        from loadgen.submission.truncate import shorten_tree

        for log in shorten_tree(folder, backup):
            click.echo(log)
        return 0


def _energy(group: click.Group, benchmark: str) -> None:
    @group.command(
        "energy",
        help="J/sample and J/token by the machine's own counters: unofficial, not for submission.",
        epilog=EXITS["submission energy"],
    )
    @click.argument("runs", nargs=-1, required=True, type=_FOLDER)
    def _(runs: tuple[Path, ...]) -> int:
        from loadgen.submission.energy import text
        from loadgen.submission.runs import read_run

        for folder in runs:
            click.echo(text(read_run(folder)), nl=False)
        return 0


def _rules(group: click.Group, benchmark: str) -> None:
    @group.command(
        "rules",
        help="List the rules of the check: id, what is asked for, how to fix it.",
        epilog=EXITS["submission rules"],
    )
    def _() -> int:
        from loadgen.submission.catalogue import RULES

        for rule in RULES.values():
            click.echo(f"{rule.id}: {rule.what} To fix: {rule.fix} The official v4.0 checker {rule.official.value}.")
        return 0
