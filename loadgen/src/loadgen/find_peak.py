"""The mode FindPeakPerformance: Server tests at one rate after another. Messages and steps are the official ones."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from loadgen.execute import execute, prepare
from loadgen.outcome import verdict_of
from loadgen.state import RunState


def find_peak(first: RunState) -> RunState:
    """The highest rate whose latency constraint holds: double until it fails, then bisect.

    first: the test at the lowest rate, prepared. Returns the test at the highest, or the first that broke off.
    """
    requested, say = first.settings.requested, partial(first.job.detail.add, "generic_message")
    low, step = requested.server_target_qps, 1 + requested.server_find_peak_qps_boundary_step_size
    say("Starting FindPeakPerformance mode")
    say(f"FindPeakPerformance: Check validity of the base settings field: {low:f}")
    execute(first)
    if not _holds(first):
        _advise(first)
        return first
    best, high = first, low * step
    while True:
        say(f"FindBoundaries: Checking fields [{low:f}, {high:f})")
        state = _tested(first, high)
        if not _holds(state):
            break
        best = state
        low, high = high, high * step
    say(f"FindPeakPerformance: Found boundaries: [{low:f}, {high:f})")
    scale = 10.0**requested.server_find_peak_qps_decimals_of_precision
    while not _broken(state) and math.floor(low * scale) + 1 < math.floor(high * scale):
        middle = low + (high - low) / 2
        say(f"FindPeakPerformanceBinarySearch: Testing the mid value of bounds [{low:f}, {high:f}): {middle:f}")
        state = _tested(first, middle)
        if _holds(state):
            best, low = state, middle
        else:
            high = middle
    if _broken(state):
        return state
    say(f"FindPeakPerformance: Found peak performance field: {low:f}")
    return best


def _tested(first: RunState, qps: float) -> RunState:
    """The test at this rate, done."""
    state = prepare(first.job, replace(first.settings.requested, server_target_qps=qps))
    execute(state)
    return state


def _broken(state: RunState) -> bool:
    """Did something other than the latency go wrong?"""
    return state.interrupted or state.errors.count > state.errors_at_start


def _holds(state: RunState) -> bool:
    if _broken(state):
        return False
    verdict = verdict_of(state)
    return verdict is not None and verdict.perf_constraints_met


def _advise(first: RunState) -> None:
    verdict = verdict_of(first)
    advice = [a for a in verdict.recommendations if "target QPS to improve" in a] if verdict else []
    first.errors.add(
        f"FindPeakPerformance: Initial lower bound does not satisfy performance constraints, msg: {' * '.join(advice)}"
    )
