"""The official settings classes, attribute for attribute (see `loadgen.compat`)."""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum
from pathlib import Path
from typing import Any

from loadgen import settings as native
from loadgen.conf import from_config
from loadgen.logs import LogSettings as NativeLogSettings


class TestScenario(IntEnum):
    __test__ = False
    SingleStream = 0
    MultiStream = 1
    Server = 2
    Offline = 3


class TestMode(IntEnum):
    __test__ = False
    SubmissionRun = 0
    AccuracyOnly = 1
    PerformanceOnly = 2
    FindPeakPerformance = 3


class LoggingMode(IntEnum):
    """Accepted and, as officially, without effect."""

    AsyncPoll = 0
    EndOfTestOnly = 1
    Synchronous = 2


_OFFICIAL_NAMES = {"server_ttft_latency": "ttft_latency", "server_tpot_latency": "tpot_latency"}
_FIELDS = {_OFFICIAL_NAMES.get(f.name, f.name): f for f in fields(native.TestSettings)}


class TestSettings:
    """The official settings class: the same attributes and defaults, and no others can be set."""

    __test__ = False
    __slots__ = tuple(_FIELDS)

    def __init__(self) -> None:
        for name, field in _FIELDS.items():
            object.__setattr__(self, name, _outward(field.default))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _FIELDS:
            raise AttributeError(f"TestSettings has no attribute {name!r}")
        kind = _FIELDS[name].type
        if kind in ("int", "bool") and isinstance(value, float):
            raise TypeError(f"TestSettings.{name} is a whole number, not {value!r}")
        object.__setattr__(self, name, float(value) if kind == "float" else value)

    def FromConfig(self, path: str, model: str, scenario: str, conf_type: int = 1) -> int:
        """Read a config file as the official class does. 0, -2 (no file) or -22 (bad line).

        Every file is read alike, as release 4.0 does; `conf_type` is accepted for 6.0's callers.
        """
        code, changed = from_config(path, model, scenario, self.native())
        for name, field in _FIELDS.items():
            object.__setattr__(self, name, _outward(getattr(changed, field.name)))
        return code

    def native(self) -> native.TestSettings:
        """The same test as `loadgen.settings.TestSettings`."""
        values = {field.name: getattr(self, name) for name, field in _FIELDS.items()}
        values["scenario"] = native.Scenario(int(values["scenario"]))
        values["mode"] = native.Mode(int(values["mode"]))
        return native.TestSettings(**values)


def _outward(value: Any) -> Any:
    if isinstance(value, native.Scenario):
        return TestScenario(value.value)
    return TestMode(value.value) if isinstance(value, native.Mode) else value


class LogOutputSettings:
    """Where the log files go."""

    def __init__(self) -> None:
        self.outdir = "."
        self.prefix = "mlperf_log_"
        self.suffix = ""
        self.prefix_with_datetime = False
        self.copy_detail_to_stdout = False
        self.copy_summary_to_stdout = False


class LogSettings:
    """Log options."""

    def __init__(self) -> None:
        self.log_output = LogOutputSettings()
        self.log_mode = LoggingMode.AsyncPoll
        self.log_mode_async_poll_interval_ms = 1000
        self.enable_trace = True

    def native(self) -> NativeLogSettings:
        output = self.log_output
        return NativeLogSettings(
            outdir=Path(output.outdir),
            prefix=output.prefix,
            suffix=output.suffix,
            prefix_with_datetime=output.prefix_with_datetime,
            enable_trace=self.enable_trace,
            copy_summary_to_stdout=output.copy_summary_to_stdout,
            copy_detail_to_stdout=output.copy_detail_to_stdout,
        )
