"""The end of a run: from its columns to a verdict and a `Result`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadgen.advice import advice
from loadgen.logs import verdict_entries
from loadgen.results import Records, Result, Verdict, headline, judge
from loadgen.settings import Mode, Revision
from loadgen.state import Part, RunState


def columns_of(state: RunState, part: Part) -> Records:
    """Columns of the queries that were answered in full, in issue order."""
    size, tokens = part.series.samples_per_query, len(state.recorder.tokens) > 0
    low, high, start = part.first_id, part.stop_id, part.start_ns
    done = state.recorder.done_view[low:high]
    queries: slice | npt.NDArray[np.bool_] = slice(None)
    samples: slice | npt.NDArray[np.bool_] = slice(None)
    if state.recorder.first_missing(low, high) < high:
        whole: npt.NDArray[np.bool_] = (done.reshape(-1, size) != 0).all(axis=1)
        queries, samples = whole, np.repeat(whole, size)
    scheduled = issued = done  # empty, unless a query went out
    if part.queries:
        scheduled = issued = np.frombuffer(part.issued, np.int64)[queries] - start
        if part.scheduled is not part.issued:
            scheduled = np.frombuffer(part.scheduled, np.int64)[: part.queries][queries] - start
    return Records(
        scheduled_ns=scheduled,
        issued_ns=issued,
        completed_ns=done[samples] - start,
        samples_per_query=size,
        first_token_ns=state.recorder.first[low:high][samples] - start if tokens else None,
        n_tokens=state.recorder.tokens[low:high][samples] if tokens else None,
    )


def verdict_of(state: RunState) -> Verdict | None:
    """The official judgement of the last part; None for an accuracy run."""
    part = state.parts[-1]
    return judge(state.settings, columns_of(state, part)) if part.mode is Mode.PerformanceOnly else None


def conclude(state: RunState) -> tuple[Result, Verdict | None]:
    """Judge a run that has ended, whatever ended it; the end of its detail log."""
    say = state.job.detail.add
    for message in state.errors.messages[state.errors_at_start :]:
        say("error_runtime", message, error=True)
    if state.errors.more:
        say("error_runtime", state.errors.more, error=True)
        state.job.detail.unlisted_errors = state.errors.count - len(state.errors.messages) - 1
    part = state.parts[-1]
    records = columns_of(state, part)
    verdict = None
    if part.timed:
        verdict = judge(state.settings, records)
        for key, value in verdict_entries(state.settings, verdict):
            say(key, value)
        if state.settings.requested.revision is Revision.V6_0:
            say("num_errors", state.job.detail.errors)
    return _result(state, records, verdict), verdict


def _result(state: RunState, records: Records, verdict: Verdict | None) -> Result:
    settings, reasons, latencies = state.settings, _reasons(state, verdict, records), records.latencies_ns
    alike = [part for part in state.parts if part.mode is state.parts[-1].mode]
    return Result(
        scenario=settings.scenario,
        mode=settings.mode,
        valid=not reasons,
        note=_note(reasons) if reasons and verdict is not None and verdict.valid else "",
        reasons=tuple(reasons),
        errors=tuple(state.errors.messages),
        warnings=tuple(e.value for e in state.job.detail.entries if e.is_warning),
        metrics=dict(verdict.metrics) if verdict else {"result_query_count": len(records.issued_ns)},
        headline=headline(settings, verdict) if verdict else None,
        query_count=sum(part.queries for part in alike),
        sample_count=sum(_answered(state, part) for part in alike),
        duration_ns=int(records.completed_ns.max()) if len(latencies) else 0,
        interrupted=state.interrupted,
        details=tuple(state.errors.details),
        raised=state.raised,
        logdir=state.job.outdir,
        latencies_ns=latencies,
        columns=records,
    )


def _note(reasons: list[str]) -> str:
    """The official LoadGen does not count errors against a result; who judges submissions does."""
    lines = [
        "The summary says VALID, as the official LoadGen would: its conditions hold, and it lets errors pass.",
        "The test is INVALID all the same (see result.json), and its log is refused as a submission:",
        *(f" * {' '.join(reason.split())}" for reason in reasons),
    ]
    return "\n".join(lines) + "\n"


def _answered(state: RunState, part: Part) -> int:
    """How many of its samples were."""
    done = state.recorder.done_view[part.first_id : part.first_id + len(part.series.indices)]
    return int(np.count_nonzero(done))


def _reasons(state: RunState, verdict: Verdict | None, records: Records) -> list[str]:
    """Every ground for INVALID, the run's own errors first. None is left out because another holds."""
    reasons = [*state.errors.messages, *([state.errors.more] if state.errors.more else ())]
    ended = [part.message for part in state.parts if part.is_error]
    reasons += [m for m in ended if m not in reasons]
    if not state.parts[-1].start_ns and not reasons:
        reasons.append("the test never reached its last set of samples")
    if verdict is not None and not len(verdict.metrics) > 1:  # there is nothing to give advice on
        return [*reasons, _unfinished(state)]
    if verdict is None or (reasons and (state.interrupted or state.recorder.failed)):
        return reasons  # no advice on a test that was not allowed to end, or whose system failed
    reasons += advice(state.settings, verdict, records)
    return reasons + [f"early stopping: {reason}" for reason in verdict.stopping_reasons]


def _unfinished(state: RunState) -> str:
    """No query was answered in full, so that nothing can be said of latencies; what was answered is said."""
    part = state.parts[-1]
    issued = part.queries * part.series.samples_per_query
    done = state.recorder.done_view[part.first_id : part.first_id + len(part.series.indices)]
    answered = done[done != 0]
    if not len(answered):
        return "no query was answered: nothing was measured"
    rate = 1e9 * len(answered) / max(1, int(answered.max()) - part.start_ns)
    return f"{len(answered):,} of {issued:,} samples were answered, {rate:,.4g}/s, but no query to its end: no result"
