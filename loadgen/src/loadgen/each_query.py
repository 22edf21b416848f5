"""What is called for each query, inside the measured time: closures over local names, made for one recorder.

Between a look at `done` and that at `attention` stands no call, and no end of a loop: where CPython has its lock, other
threads wait until then (see `recorder`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from loadgen.contracts import Buffer, Ints, Offsets
from loadgen.forms import SMALL, listed, memory

if TYPE_CHECKING:
    from loadgen.recorder import Recorder


def timed(recorder: Recorder) -> Any:
    """`complete` for runs that log no answers and count no tokens."""
    now, done, attention = recorder.now_ns, recorder.done, recorder.attention
    attend, refuse, many, given, needs_lock = (
        recorder.attend,
        recorder.refuse,
        recorder.many,
        recorder.given,
        recorder.locks,
    )
    few = recorder.complete_few

    def complete(
        ids: Ints,
        data: Buffer | None = None,
        offsets: Offsets | None = None,
        n_tokens: Ints | None = None,
        at_ns: Ints | None = None,
    ) -> None:
        at: Any = now() if at_ns is None else given(ids, at_ns)
        if type(ids) is tuple and len(ids) == 1:  # Server's queries
            ids = ids[0]
        if type(ids) is not int or needs_lock:
            if type(ids) in (range, tuple, list) and len(ids) <= SMALL and type(at) is int:  # type: ignore[arg-type]
                few(at, ids)
            else:
                many(ids, at)
            return
        try:
            if ids < 0 or done[ids]:
                refuse(ids)
                return
            done[ids] = at
        except IndexError:
            refuse(ids)
            return
        if attention[0]:
            attend(ids, at)

    return complete


def full(recorder: Recorder) -> Any:
    """`complete` for runs that log answers or count tokens."""
    now, given, one, many = recorder.now_ns, recorder.given, recorder.complete_one, recorder.complete_many
    few, logs = recorder.complete_few, recorder.keep is not None

    def complete(
        ids: Ints,
        data: Buffer | None = None,
        offsets: Offsets | None = None,
        n_tokens: Ints | None = None,
        at_ns: Ints | None = None,
    ) -> None:
        at: Any = now() if at_ns is None else given(ids, at_ns)
        if type(at) is not int:
            many(at, ids, data, offsets, n_tokens)
        elif type(ids) is int:
            one(at, ids, data, n_tokens, offsets)
        elif logs or len(ids) > SMALL:  # type: ignore[arg-type]
            many(at, ids, data, offsets, n_tokens)
        else:
            few(at, listed(ids), listed(0 if n_tokens is None else n_tokens, len(ids)))  # type: ignore[arg-type]

    return complete


def one(recorder: Recorder) -> Callable[..., None]:
    """`complete_one`: `complete` of one id, at a time that is not questioned."""
    done, attention, attend, locked, needs_lock = (
        recorder.done,
        recorder.attention,
        recorder.attend,
        recorder.locked,
        recorder.locks,
    )
    first, tokens, keeps = memory(recorder.first), memory(recorder.tokens), memory(recorder.keep)
    counts, logs, needs_first = len(recorder.tokens) > 0, recorder.keep is not None, recorder.needs_first

    def complete_one(
        at: int, position: int, data: Buffer | None = None, n_tokens: Any = None, offsets: Offsets | None = None
    ) -> None:
        try:
            if (
                position < 0
                or needs_lock
                or (logs and keeps[position])
                or (counts and (type(n_tokens) is not int or n_tokens < 2))
                or (needs_first and not first[position])
                or done[position]
            ):
                locked(at, position, data, n_tokens, offsets)
                return
            if counts:
                tokens[position] = n_tokens
            done[position] = at
        except IndexError:
            locked(at, position, data, n_tokens, offsets)
            return
        if attention[0]:
            attend(position, at)

    return complete_one


def first_token(recorder: Recorder) -> tuple[Callable[..., None], Callable[..., None]]:
    """`first_token`, and of one id at a time that is not questioned."""
    now, given, many = recorder.now_ns, recorder.given, recorder.first_tokens_many
    done, first, keeps = recorder.done, memory(recorder.first), memory(recorder.keep)
    logs, counts = recorder.keep is not None, len(recorder.tokens) > 0

    def first_token_one(at: int, position: int, data: Buffer | None = None) -> None:
        if not counts:
            return
        try:
            if position < 0 or done[position] or first[position] or (logs and keeps[position]):
                many(at, position, data)
            else:
                first[position] = at
        except IndexError:
            many(at, position, data)

    def first_token(
        ids: Ints, data: Buffer | None = None, offsets: Offsets | None = None, at_ns: Ints | None = None
    ) -> None:
        at: Any = now() if at_ns is None else given(ids, at_ns)
        if type(ids) is int and type(at) is int and offsets is None:
            first_token_one(at, ids, data)
        elif counts and (type(ids) is int or type(at) is not int or logs or len(ids) > SMALL):  # type: ignore[arg-type]
            many(at, ids, data, offsets)
        elif counts:
            for one in listed(ids):
                first_token_one(at, one)

    return first_token, first_token_one


def few(recorder: Recorder) -> Callable[..., None]:
    """`complete_few`: `complete` of up to `SMALL` ids whose answers are not logged. counts: of tokens."""
    done, count, answered, needs_lock = recorder.done, recorder.count, recorder.answered_at_least, recorder.locks
    attention, looks, attend_each = recorder.attention, recorder.looks, recorder.attend_each
    refuse, few_locked = recorder.refuse, recorder.few_locked

    def complete_few(at: int, positions: Sequence[int], counts: Sequence[int] | None = None) -> None:
        if counts is not None or needs_lock:
            few_locked(at, positions, counts)
            return
        before, refused = looks[0], []
        for i in positions:
            if not 0 <= i < count or done[i]:
                refuse(i)
                refused.append(i)
            else:
                done[i] = at
        answered[0] += len(positions) - len(refused)
        if attention[0] or looks[0] != before:
            attend_each(positions, refused, at)

    return complete_few
