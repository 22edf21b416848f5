"""The session of a power meter: what client, server and PTDaemon noted must fit together and fit the files."""

from __future__ import annotations

import hashlib
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from loadgen.submission.checks.meter import load_span, moment_of, samples
from loadgen.submission.findings import Official
from loadgen.submission.reading import read_log, read_object, read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_CLOCKS_APART_S = 0.8
_FIELDS = ("version", "timezone", "modules", "sources", "messages", "uuid", "session_name", "results", "phases")
_NOTED = [
    "power/client.log",
    "power/ptd_logs.txt",
    "power/server.log",
    *(f"{run}/{name}" for run in ("ranging", "run_1") for name in ("mlperf_log_detail.txt", "mlperf_log_summary.txt")),
    *(f"{run}/spl.txt" for run in ("ranging", "run_1")),
]
"""Files whose SHA-1 the session keeps."""
Found = tuple[str, str, str, Any, Any, "Official | None"]
"""(rule, file, key, observed, required, what the official checker does where it differs from the rule)."""


@cache
def power_rules() -> Mapping[str, Any]:
    """Meters, versions and checksums that are accepted."""
    return tomllib.loads(resources.files("loadgen.submission").joinpath("power.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Session:
    """The two descriptions of a session, and its folder, which has power/, ranging/ and run_1/."""

    client: Mapping[str, Any]
    server: Mapping[str, Any]
    folder: Path


def check_session(folder: Path) -> Iterator[Found]:
    """Everything that the official power checker looks at; a description that is damaged ends it."""
    sides: dict[str, Mapping[str, Any]] = {}
    for side in ("client", "server"):
        said, fault = read_object(folder / "power" / f"{side}.json")
        missing = [key for key in _FIELDS if said is not None and key not in said]
        if said is None or missing:
            yield "power-session", f"power/{side}.json", "", fault or f"without {', '.join(missing)}", "a session", None
        else:
            sides[side] = said
    if len(sides) < 2:
        return
    session = Session(sides["client"], sides["server"], folder)
    for rule, file, check in _CHECKS:
        yield from _guarded(rule, file, check, session)


def _guarded(rule: str, file: str, check: Callable[[Session], Iterator[Found]], session: Session) -> Iterator[Found]:
    """A description of any other shape breaks the rule that could not be checked."""
    try:
        yield from list(check(session))
    except _NoWindow:  # which has a rule of its own
        return
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, ZeroDivisionError) as error:
        yield rule, file, "", f"cannot be judged ({type(error).__name__}: {error})", "a whole session", None


def _sources(session: Session) -> Iterator[Found]:
    for side, said in (("client", session.client), ("server", session.server)):
        if said["sources"] not in power_rules()["sources"]:
            yield "power-sources", f"power/{side}.json", "sources", "other checksums", "those of a release", None


def _meter(session: Session) -> Iterator[Found]:
    messages: Sequence[Mapping[str, str]] = session.server["ptd_messages"]
    file, rules = "power/server.json", power_rules()
    identity = next((one["reply"] for one in messages if one["cmd"] == "Identify"), "")
    version = re.search(r"version=(.+?)-", identity)
    if (version[1] if version else "") not in rules["versions"]:
        yield "power-meter", file, "Identify", identity or "no answer", f"PTDaemon {', '.join(rules['versions'])}", None
    if identity.split(",")[0] not in rules["meters"]:
        yield "power-meter", file, "Identify", identity or "no answer", "a supported meter", None
    for command, reply, number in _replies(messages):
        wanted = rules["stopped_reply"] if command == "Stop" and number >= 2 else _wanted(command, rules["replies"])
        if wanted is not None and reply != wanted:
            yield "power-meter", file, command, reply, wanted, None
    yield from _ranges(messages, file)


def _replies(messages: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str, int]]:
    """(command, reply, how many Stops were before)."""
    stops = 0
    for one in messages:
        yield one["cmd"], one["reply"], stops
        stops += one["cmd"] == "Stop"


def _wanted(command: str, replies: Mapping[str, str]) -> str | None:
    return next((reply for beginning, reply in replies.items() if command.startswith(beginning)), None)


def _ranges(messages: Sequence[Mapping[str, str]], file: str) -> Iterator[Found]:
    """The meter's ranges of before the session are set again at its end."""
    cells = messages[2]["reply"].split(",")
    for command, at in (("SR,A", 1), ("SR,V", 3)):
        initial = cells[at + 1] if cells[at] == "0" and float(cells[at + 1]) > 0 else "Auto"
        given = [one["cmd"] for one in messages if one["cmd"].startswith(command)]
        observed = given[2] if len(given) > 2 else "not there"
        if observed != f"{command},{initial}":
            yield "power-meter", file, f"the third {command}", observed, f"{command},{initial}", None


def _uuid(session: Session) -> Iterator[Found]:
    for key in ("client", "server"):
        one, other = session.client["uuid"][key], session.server["uuid"][key]
        if uuid.UUID(one) != uuid.UUID(other):
            yield "power-uuid", "power/server.json", f"uuid.{key}", other, one, None


def _name(session: Session) -> Iterator[Found]:
    one, other = session.client["session_name"], session.server["session_name"]
    if one != other:
        yield "power-uuid", "power/server.json", "session_name", other, one, None


def _phases(session: Session) -> Iterator[Found]:
    for name, run in (("ranging", "ranging"), ("testing", "run_1")):
        one, other = session.client["phases"][name], session.server["phases"][name]
        if len(one) != len(other):
            yield "power-phases", "power/server.json", name, f"{len(other)} phases", f"{len(one)}", None
            continue
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True), 1):
            apart = abs(mine[0] - theirs[0])
            if apart > _CLOCKS_APART_S:
                said, most = f"{apart:.3f} s apart", f"at most {_CLOCKS_APART_S} s"
                yield "power-phases", "power/server.json", f"{name}, phase {number}", said, most, None
        file, begin, end = f"{run}/mlperf_log_detail.txt", one[1][0], one[2][0]
        for key, at in zip(("power_begin", "power_end"), span_s(session.folder / run), strict=True):
            if not (begin < at < end or begin < at - 3600 < end):  # an hour, for clocks with summer time
                yield "power-phases", file, key, f"{at:.3f} s", f"within {begin:.3f} to {end:.3f} s", None


def span_s(run: Path) -> tuple[float, float]:
    """Begin and end of the load in seconds since 1970, UTC. Raises _NoWindow."""
    span = load_span(read_log(run / "mlperf_log_detail.txt"))
    if span is None:
        raise _NoWindow
    return span[0].timestamp(), span[1].timestamp()


class _NoWindow(Exception):
    """A log does not say when its load ran."""


def _dip(session: Session) -> Iterator[Found]:
    """A test that is far shorter than the ranging run hides a dip from the official checker."""
    long, short = (end - begin for begin, end in (span_s(session.folder / run) for run in ("ranging", "run_1")))
    hidden = (long - short) / long > 0.5
    if hidden:
        key, said = "power_begin, power_end", f"{short:.0f} s, the ranging run {long:.0f} s"
        yield "power-warning", "run_1/mlperf_log_detail.txt", key, said, "at least half as long", None
    ranging, testing = (_mean_watts(session.folder / run) for run in ("ranging", "run_1"))
    change = round((testing / ranging - 1) * 100, 2)
    if change <= -5 and testing > 0:  # without a sample another rule is broken
        official = Official.SILENT if hidden else None
        yield "power-dip", "run_1/spl.txt", "watts", f"{change} %", "above -5 % of the ranging run", official


def _mean_watts(run: Path) -> float:
    span = load_span(read_log(run / "mlperf_log_detail.txt"))
    if span is None:
        raise _NoWindow
    watts = [one.watts for one in samples(run / "spl.txt", span) if one.watts > 0]
    return round(sum(watts) / len(watts), 5) if watts else -1.0


def _messages(session: Session) -> Iterator[Found]:
    mine, theirs = session.client["messages"], session.server["messages"]
    file = "power/server.json"
    if len(mine) != len(theirs):
        yield "power-messages", file, "messages", len(theirs), len(mine), None
        return
    for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        if one["cmd"] != other["cmd"]:
            yield "power-messages", file, f"messages[{number}].cmd", other["cmd"], one["cmd"], None
        elif one["cmd"] != "time" and one["reply"] != other["reply"]:
            yield "power-messages", file, f"messages[{number}].reply", other["reply"], one["reply"], None
    versions = [re.search(rf"mlcommons/power {side} v(\d+)$", text) for side, text in _greeting(theirs[0])]
    if not all(versions) or versions[0][1] != versions[1][1]:  # type: ignore[index]
        yield "power-messages", file, "messages[0]", theirs[0], "client and server of one version", None


def _greeting(message: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield from (("client", message["cmd"]), ("server", message["reply"]))


def _checksums(session: Session) -> Iterator[Found]:
    noted = {**session.client["results"], **session.server["results"]}
    for path in _NOTED:
        one, other = session.client["results"].get(path), session.server["results"].get(path)
        file = session.folder / path
        real = hashlib.sha1(file.read_bytes()).hexdigest() if file.is_file() else "not there"
        if path not in noted:
            yield "power-checksums", path, "", "not noted by the session", "its SHA-1", None
        elif (one and other and one != other) or noted[path] != real:
            yield "power-checksums", path, "", real, noted[path], None


_STAMP = re.compile(r"^\d\d-\d\d-\d{4} \d\d:\d\d:\d\d\.\d{3}")


def _ptd_log(session: Session) -> Iterator[Found]:
    text, fault = read_text(session.folder / "power" / "ptd_logs.txt")
    if text is None:
        raise ValueError(fault)
    lines = [(at, line) for line in text.splitlines() if (at := _stamp_s(line)) is not None]
    began, ended = _ranging_s(lines, f": Go with mark {session.server['session_name'] + '_ranging'!r}")
    file = "power/ptd_logs.txt"
    activated = [at for at, line in lines if re.search(r"Uncertainty checking for Yokogawa\S+ is activated", line)]
    if not activated or activated[0] >= began:
        yield "power-log", file, "", "uncertainty is not checked", "activated before the ranging run", None
    begin, end = span_s(session.folder / "run_1")
    hidden = False  # at its first warning the official checker stops reading
    for at, line in lines:
        official = Official.SILENT if hidden else None
        for rule, differs in _line_faults(at, line, (began, ended), (begin, end)):
            yield rule, file, "", line.strip(), "", official or differs
            hidden = hidden or (rule == "power-warning" and differs is not Official.SILENT)


def _stamp_s(line: str) -> float | None:
    match = _STAMP.match(line)
    return moment_of(match[0]).timestamp() if match else None


def _ranging_s(lines: Sequence[tuple[float, str]], mark: str) -> tuple[float, float]:
    began = next((at for at, line in lines if line[23:].strip() == mark), None)
    ended = next((at for at, line in lines if line[23:].strip() == ": Completed test" and at >= (began or at)), None)
    if began is None or ended is None:
        raise ValueError("the ranging run's begin or end is not in the log")
    return began, ended


_UNCERTAIN = re.compile(r"Uncertainty \d+.\d+%, which is above 1.00% limit for the last sample!")


def _line_faults(
    at: float, line: str, ranging: tuple[float, float], load: tuple[float, float]
) -> Iterator[tuple[str, Official | None]]:
    """(rule, what the official checker does) of a line with a warning or an error."""
    warning, error = re.search("(?<=WARNING:).+", line), re.search("(?<=ERROR:).+", line)
    if warning and load[0] + _CLOCKS_APART_S < at < load[1] - _CLOCKS_APART_S:
        # the official checker adds its 800 ms as seconds, and so looks at long runs' middle only
        seen = load[0] + 1000 * _CLOCKS_APART_S < at < load[1] - 1000 * _CLOCKS_APART_S
        rule = "power-log" if _UNCERTAIN.search(warning[0]) else "power-warning"
        yield rule, None if seen else Official.SILENT
    if error:
        said, rules = error[0].strip(), power_rules()
        if said in rules["tolerated_errors"]:
            yield "power-warning", None
        elif not ranging[0] < at < ranging[1]:
            yield "power-log", None
        elif not said.startswith(tuple(beginning.strip() for beginning in rules["ranging_errors"])):
            yield "power-warning", None


def _device(session: Session) -> Iterator[Found]:
    config, rules = session.server["ptd_config"], power_rules()
    kind = config["device_type"]
    if kind not in rules["meters"].values():
        yield "power-device", "power/server.json", "ptd_config.device_type", kind, "a supported meter", None
    if kind == rules["multichannel"]:
        command = list(config["command"])
        channels = command[command.index("-c") + 1] if "-c" in command else ""
        if len(channels.split(",")) != 2 or len(config["channel"] or ()) != 2:
            yield "power-device", "power/server.json", "ptd_config.channel", config["channel"], "two channels", None


def _debug(session: Session) -> Iterator[Found]:
    if session.server.get("debug", False) is not False:
        yield "power-debug", "power/server.json", "debug", session.server["debug"], False, None


_CHECKS: tuple[tuple[str, str, Callable[[Session], Iterator[Found]]], ...] = (
    ("power-sources", "power/server.json", _sources),
    ("power-meter", "power/server.json", _meter),
    ("power-uuid", "power/server.json", _uuid),
    ("power-uuid", "power/server.json", _name),
    ("power-phases", "power/server.json", _phases),
    ("power-dip", "run_1/spl.txt", _dip),
    ("power-messages", "power/server.json", _messages),
    ("power-checksums", "power/server.json", _checksums),
    ("power-log", "power/ptd_logs.txt", _ptd_log),
    ("power-device", "power/server.json", _device),
    ("power-debug", "power/server.json", _debug),
)
