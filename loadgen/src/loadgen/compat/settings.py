"""The official settings classes, attribute for attribute (see `loadgen.compat`).

Values are converted when they are set, numpy's too, and refused then if no test could use them.
"""

from __future__ import annotations

import operator
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from loadgen import settings as native
from loadgen.compat import config
from loadgen.logs import LogSettings as NativeLogSettings


class _Numbered(Enum):
    """As the official enumerations: named, with a number that has to be asked for."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)

    def __hash__(self) -> int:
        return int(self.value)


class TestScenario(_Numbered):
    __test__ = False
    SingleStream = 0
    MultiStream = 1
    Server = 2
    Offline = 3


class TestMode(_Numbered):
    __test__ = False
    SubmissionRun = 0
    AccuracyOnly = 1
    PerformanceOnly = 2
    FindPeakPerformance = 3


class LoggingMode(_Numbered):
    """Accepted and, as officially, without effect."""

    AsyncPoll = 0
    EndOfTestOnly = 1
    Synchronous = 2


_OFFICIAL_NAMES = {"server_ttft_latency": "ttft_latency", "server_tpot_latency": "tpot_latency"}
_FIELDS = {_OFFICIAL_NAMES.get(f.name, f.name): f for f in fields(native.TestSettings)}
_SIGNED = "server_find_peak_qps_decimals_of_precision"
_INT32, _UINT64 = (-(2**31), 2**31 - 1), (0, 2**64 - 1)


class TestSettings:
    """The official settings class: the same attributes and defaults, and no others can be set, but for two.

    revision: the official release to follow. watchdog_s: end a test, INVALID, when no answer comes for so many seconds
    while samples are out; 0 waits for ever, as officially.
    """

    __test__ = False
    __slots__ = (*_FIELDS, "watchdog_s")
    watchdog_s: float

    def __init__(self) -> None:
        for name, field in _FIELDS.items():
            object.__setattr__(self, name, _outward(field.default))
        object.__setattr__(self, "watchdog_s", 0.0)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in TestSettings.__slots__:
            raise AttributeError(f"TestSettings has no attribute {name!r}")
        object.__setattr__(self, name, _converted(name, value))

    def FromConfig(self, path: str, model: str, scenario: str, conf_type: int = 1) -> int:
        """Read a config file as the official class does. 0, -2 (no file) or -22 (bad line).

        Release 4.0 reads every file alike. For 6.0, conf_type says what the file is. 1, user.conf: the first such call
        of a process applies the rules of round v6.1 before it, a second one is an error. 0: these rules alone, the file
        is not read. Others: the file alone. No file but the rules can set seeds. What is wrong goes into the log of the
        next test.
        """
        code, changed = config.read(path, model, scenario, self.native(), conf_type)
        for name, field in _FIELDS.items():
            object.__setattr__(self, name, _outward(getattr(changed, field.name)))
        return code

    def native(self) -> native.TestSettings:
        """The same test as `loadgen.settings.TestSettings`."""
        values = {field.name: getattr(self, name) for name, field in _FIELDS.items()}
        values["scenario"] = native.Scenario(int(values["scenario"]))
        values["mode"] = native.Mode(int(values["mode"]))
        return native.TestSettings(**values)


def _converted(name: str, value: Any) -> Any:
    """The value in the attribute's type. Raises TypeError, as officially."""
    kind = "float" if name == "watchdog_s" else _FIELDS[name].type
    if kind == "float":
        if isinstance(value, (int, float, np.number, np.bool_)) and not (name == "watchdog_s" and value < 0):
            return float(value)
        raise TypeError(f"TestSettings.{name} is a number, not {value!r}")
    if kind == "bool":
        if isinstance(value, (int, float, np.number, np.bool_)):
            return bool(value)
        raise TypeError(f"TestSettings.{name} is True or False, not {value!r}")
    if kind == "int":
        return _whole(f"TestSettings.{name}", value, *(_INT32 if name == _SIGNED else _UINT64))
    wanted = {"Scenario": TestScenario, "Mode": TestMode, "Revision": native.Revision}[str(kind)]
    if not isinstance(value, wanted):
        raise TypeError(f"TestSettings.{name} is a {wanted.__name__}, not {value!r}")
    return value


def _whole(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = int(value) if isinstance(value, np.bool_) else operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is a whole number, not {value!r}") from None
    if isinstance(value, Enum) or not low <= number <= high:
        raise TypeError(f"{name} is a whole number from {low} to {high}, not {value!r}")
    return number


def _outward(value: Any) -> Any:
    if isinstance(value, native.Scenario):
        return TestScenario(value.value)
    return TestMode(value.value) if isinstance(value, native.Mode) else value


class LogOutputSettings:
    """Where the log files go."""

    __slots__ = (
        "copy_detail_to_stdout",
        "copy_summary_to_stdout",
        "outdir",
        "prefix",
        "prefix_with_datetime",
        "suffix",
    )

    def __init__(self) -> None:
        self.outdir = "."
        self.prefix = "mlperf_log_"
        self.suffix = ""
        self.prefix_with_datetime = False
        self.copy_detail_to_stdout = False
        self.copy_summary_to_stdout = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("outdir", "prefix", "suffix"):
            if not isinstance(value, str):
                raise TypeError(f"LogOutputSettings.{name} is a string, not {value!r}")
        elif name in LogOutputSettings.__slots__:
            value = _switch(f"LogOutputSettings.{name}", value)
        object.__setattr__(self, name, value)


class LogSettings:
    """Log options."""

    __slots__ = ("enable_trace", "log_mode", "log_mode_async_poll_interval_ms", "log_output")

    def __init__(self) -> None:
        self.log_output = LogOutputSettings()
        self.log_mode = LoggingMode.AsyncPoll
        self.log_mode_async_poll_interval_ms = 1000
        self.enable_trace = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "log_output":
            value = _copied(value)
        elif name == "log_mode" and not isinstance(value, LoggingMode):
            raise TypeError(f"LogSettings.log_mode is a LoggingMode, not {value!r}")
        elif name == "log_mode_async_poll_interval_ms":
            value = _whole(f"LogSettings.{name}", value, *_UINT64)
        elif name == "enable_trace":
            value = _switch(f"LogSettings.{name}", value)
        object.__setattr__(self, name, value)

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


def _copied(output: Any) -> LogOutputSettings:
    """As officially: a change of the one that was set changes nothing."""
    if not isinstance(output, LogOutputSettings):
        raise TypeError(f"LogSettings.log_output is a LogOutputSettings, not {output!r}")
    copy = LogOutputSettings()
    for name in LogOutputSettings.__slots__:
        setattr(copy, name, getattr(output, name))
    return copy


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, (int, np.bool_)):
        raise TypeError(f"{name} is True or False, not {value!r}")
    return bool(value)
