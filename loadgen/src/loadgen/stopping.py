"""What early stopping says of one column of latencies: enough queries or not, the estimate, the official text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen import early_stopping
from loadgen.contracts import I64
from loadgen.settings import EffectiveSettings, Revision, Scenario


@dataclass(frozen=True)
class Stopping:
    """The outcome for one column."""

    met: bool
    text: str
    """Of the official log."""
    estimate_ns: int = 0
    reason: str = ""
    """In plain words, why it is not met."""


_SURE = f"{100 * early_stopping.CONFIDENCE:g} % sure"


def _share(settings: EffectiveSettings) -> str:
    return f"{100 * settings.target_latency_percentile:g} %"


def stop(settings: EffectiveSettings, ordered: I64, limit_ns: int) -> Stopping:
    if settings.scenario is Scenario.Offline:
        return Stopping(True, "")
    if settings.scenario is Scenario.Server:
        return _stop_server(settings, ordered, limit_ns)
    return _stop_stream(settings, ordered)


def _stop_server(settings: EffectiveSettings, ordered: I64, limit_ns: int) -> Stopping:
    n = len(ordered)
    over = n - int(np.searchsorted(ordered, limit_ns, side="right"))
    needed = early_stopping.min_under(over, settings.target_latency_percentile) + over
    if n >= needed:
        return Stopping(True, " * Run successful.")
    return Stopping(
        False,
        f" * Run unsuccessful.\n * Processed {n} queries.\n"
        f" * Would need to run at least {needed - n} more queries,\n"
        " with the run being successful if every additional\n query were under latency.",
        reason=_too_late(settings, limit_ns, n, over, needed),
    )


def _too_late(settings: EffectiveSettings, limit_ns: int, n: int, over: int, needed: int) -> str:
    limit, may = f"the limit of {limit_ns / 1e6:,.6g} ms", 100 * (1 - settings.target_latency_percentile)
    if 100 * over > may * n:
        return f"{over:,} of {n:,} queries took longer than {limit}, more than the {may:.3g} % that may"
    late = f"{over:,} of {n:,} queries took longer than {limit}" if over else f"none of {n:,} queries was late"
    return (
        f"{late}, but to be {_SURE} that {_share(settings)} keep the limit, {needed:,} queries are needed with no more "
        "of them late: let the test run longer (--duration)"
    )


def _stop_stream(settings: EffectiveSettings, ordered: I64) -> Stopping:
    n, p = len(ordered), settings.target_latency_percentile
    name = ordinal(p, settings.requested.revision)
    needed = early_stopping.min_under(1, p) + 1
    if n < needed:
        return Stopping(
            False,
            f" * Only processed {n} queries.\n * Need to process at least {needed} queries for early stopping.",
            reason=f"{n:,} queries are too few to be {_SURE} within which time {_share(settings)} are answered: "
            f"{needed:,} are needed; let the test run longer (--duration)",
        )
    over = early_stopping.max_over(n, p)
    estimate = int(ordered[n - over])
    text = (
        f" * Processed at least {needed} queries ({n}).\n"
        f" * Would discard {over - 1} highest latency queries.\n"
        f" * Early stopping {name} percentile estimate: {estimate}"
    )
    if settings.scenario is Scenario.SingleStream:
        text += _second_estimate(ordered, settings.requested.revision)
    return Stopping(True, text, estimate)


def _second_estimate(ordered: I64, revision: Revision) -> str:
    """SingleStream also reports the 99th percentile, because MultiStream can be inferred from it."""
    n, p = len(ordered), 0.99
    name, needed = ordinal(p, revision), early_stopping.min_under(1, p) + 1
    if n < needed:
        return (
            f"\n * Not enough queries processed for {name} percentile\n"
            " early stopping estimate (would need to process at\n"
            f" least {needed} total queries)."
        )
    estimate = int(ordered[n - early_stopping.max_over(n, p)])
    return f"\n * Early stopping {name} percentile estimate: {estimate}"


def ordinal(p: float, revision: Revision) -> str:
    """A percentile as the official text names it: 90th, in release 6.0 90.0th."""
    return f"{p * 100:.1f}th" if revision is Revision.V6_0 else f"{p * 100:g}th"
