"""Where the answers of a submission go: to the test that is running. Any thread may bring them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.compat.addresses import bytes_at, read
from loadgen.compat.samples import QuerySampleResponse, Responses
from loadgen.contracts import I64
from loadgen.recorder import Recorder

_FEW = 16  # responses up to which a loop beats columns
_Callback = Callable[[QuerySampleResponse], Any]


class _Test:
    """The test that is running, in one object, so that another thread sees it whole."""

    __slots__ = ("answered", "attention", "done", "first", "is_plain", "logs", "looks", "now_ns", "recorder")

    def __init__(self, recorder: Recorder, first: int) -> None:
        self.recorder, self.first = recorder, first
        self.now_ns, self.done, self.attention = recorder.now_ns, recorder.done, recorder.attention
        self.answered, self.looks = recorder.answered_at_least, recorder.looks
        self.is_plain, self.logs = recorder.times_only and not recorder.locks, recorder.keep is not None


_test: _Test | None = None
_next_id = 1  # no id is used twice in a process: a late answer is not taken for one of the next test


def attach(recorder: Recorder) -> int:
    """Answers go to this test from now on. Returns the id of its first sample."""
    global _test, _next_id
    first, _next_id = _next_id, _next_id + recorder.count
    _test = _Test(recorder, first)
    return first


def detach() -> None:
    """No test is running."""
    global _test
    _test = None


def AbortTest() -> None:
    """End the running test, INVALID. Any thread."""
    test = _test
    if test is not None:
        test.recorder.fail("The test was aborted by AbortTest()")


def QuerySamplesComplete(responses: Responses, response_cb: _Callback | None = None) -> None:
    """These samples are answered. `response_cb` is called for those that are logged, before they are copied."""
    test = _test
    if test is None:
        return
    at = test.now_ns()
    count = len(responses)
    if not test.is_plain or count > _FEW:
        _complete(test, at, responses, response_cb)
        return
    done, first = test.done, test.first
    if count == 1:  # as `each_query.timed`: no call stands between the look at `done` and that at `attention`
        k = responses[0].id - first
        try:
            if k < 0 or done[k]:
                _refuse(test, k)
                return
            done[k] = at
        except IndexError:
            _refuse(test, k)
            return
        if test.attention[0]:
            test.recorder.attend(k, at)
        return
    before, refused = test.looks[0], None  # as `each_query.few`
    for response in responses:
        k = response.id - first
        try:
            if k < 0 or done[k]:
                refused = [*(refused or ()), k]
            else:
                done[k] = at
        except IndexError:
            refused = [*(refused or ()), k]
    test.answered[0] += count
    if refused or test.attention[0] or test.looks[0] != before:
        _attend(test, at, responses, refused or [])


def _attend(test: _Test, at: int, responses: Responses, refused: list[int]) -> None:
    """After several answers, some of which could not be taken."""
    for k in refused:
        _refuse(test, k)
    test.answered[0] -= len(refused)
    test.recorder.attend_each([response.id - test.first for response in responses], refused, at)


def _complete(test: _Test, at: int, responses: Responses, response_cb: _Callback | None) -> None:
    recorder, first = test.recorder, test.first
    if len(responses) > _FEW:
        _complete_many(test, at, responses, response_cb)
    elif test.logs or len(responses) == 1:
        for response in responses:
            k = response.id - first
            if not 0 <= k < recorder.count:
                _refuse(test, k)
                continue
            data = None
            if test.logs and recorder.keep[k]:  # type: ignore[index]
                if response_cb is not None:
                    response_cb(response)
                data = _data(test, k, response)
            recorder.complete_one(at, k, data, response.n_tokens)
    else:
        positions = [response.id - first for response in responses]
        counts = [response.n_tokens for response in responses] if len(recorder.tokens) else None
        if min(positions, default=0) < 0 or max(positions, default=0) >= recorder.count:
            for response in responses:
                _complete(test, at, [response], None)
            return
        recorder.complete_few(at, positions, counts)


def _complete_many(test: _Test, at: int, responses: Responses, response_cb: _Callback | None) -> None:
    recorder = test.recorder
    responses, positions = _known(test, responses)
    data = offsets = None
    if recorder.keep is not None:
        kept = recorder.keep[positions]
        for response in itertools.compress(responses, kept) if response_cb is not None else ():
            response_cb(response)  # type: ignore[misc]
        data, offsets = _data_of(test, positions, responses, kept)
    tokens = _column("n_tokens", responses) if len(recorder.tokens) else None
    recorder.complete_many(at, positions, data, offsets, tokens)


def FirstTokenComplete(responses: Responses, response_cb: _Callback | None = None) -> None:
    """The first token of these samples is out. `response_cb` is not called, as officially."""
    test = _test
    if test is None:
        return
    at, recorder = test.now_ns(), test.recorder
    if not len(recorder.tokens):
        return
    if len(responses) > _FEW:
        responses, positions = _known(test, responses)
        data = offsets = None
        if recorder.keep is not None:
            data, offsets = _data_of(test, positions, responses, recorder.keep[positions])
        recorder.first_tokens_many(at, positions, data, offsets)
        return
    for response in responses:
        k = response.id - test.first
        if 0 <= k < recorder.count:
            kept = test.logs and recorder.keep[k]  # type: ignore[index]
            recorder.first_token_one(at, k, _data(test, k, response) if kept else None)
        else:
            _refuse(test, k)


def _known(test: _Test, responses: Responses) -> tuple[Responses, I64]:
    """Responses to samples of this test, and their positions; the others become errors."""
    positions = _column("id", responses) - test.first
    known = (positions >= 0) & (positions < test.recorder.count)
    if known.all():
        return responses, positions
    for k in positions[~known].tolist():
        _refuse(test, k)
    return list(itertools.compress(responses, known)), positions[known]


def _column(name: str, responses: Responses) -> I64:
    """What each response has under this name."""
    return np.fromiter(map(attrgetter(name), responses), np.int64, len(responses))


def _refuse(test: _Test, position: int) -> None:
    """Note an answer that cannot be taken."""
    recorder, one = test.recorder, int(position) + test.first
    if 0 <= position < recorder.count:
        recorder.refuse(int(position))
    elif 0 < one < test.first:
        recorder.errors.add(f"Received completion for an old sample: id {one} is of an earlier test")
    else:
        last = test.first + recorder.count - 1
        recorder.errors.add(
            f"Received completion for an unknown sample: id {one}; this test has ids {test.first} to {last}"
        )


def _data(test: _Test, position: int, response: QuerySampleResponse) -> bytes:
    """The bytes of an answer that is logged."""
    address, size = int(response.data), int(response.size)
    if size > 0 and address == 0:
        _without_address(test, [position], [size])
        return b""
    return bytes_at(address, size) if size > 0 else b""


def _data_of(test: _Test, positions: I64, responses: Responses, kept: npt.NDArray[np.bool_]) -> tuple[bytes, I64]:
    """As `_data`, of several, of which some are kept: all bytes, and where each answer begins and ends."""
    sizes = np.where(kept, np.maximum(_column("size", responses), 0), 0)
    addresses = _column("data", responses)
    nowhere = (addresses == 0) & (sizes > 0)
    if nowhere.any():
        _without_address(test, positions[nowhere].tolist(), sizes[nowhere].tolist())
        sizes[nowhere] = 0
    return read(addresses, sizes)


def _without_address(test: _Test, positions: Sequence[int], sizes: Sequence[int]) -> None:
    for k, size in zip(positions, sizes, strict=True):
        test.recorder.errors.add(
            f"An answer of {size} bytes came with the address 0, so it is logged as empty: id {k}; pass the address of "
            "its first byte"
        )
