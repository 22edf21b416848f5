"""Systems that `test_system` runs in a process of their own: each does one thing, most of them one wrong thing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np

from loadgen.contracts import InputError
from loadgen.testing import FakeSystem


def big_answer(index: int) -> bytes:
    """Of no round size; the last are several times as large as the ring of the test."""
    return bytes([index % 251, 0, 255]) * (index**2 * 100) + b"." * (index % 9)


class Big(FakeSystem):
    """Answers from a worker thread, several samples at once where a query has several."""

    def _answer(self, ids: Any, some: Any) -> None:
        def work() -> None:
            texts = [big_answer(index) for index in some]
            offsets = [sum(map(len, texts[:k])) for k in range(len(texts) + 1)]
            self.respond.complete(ids, b"".join(texts), offsets)

        threading.Thread(target=work).start()


class Tokens(FakeSystem):
    """Takes 1 ms to the first token and 3 ms to the last."""

    def _answer(self, ids: Any, some: Any) -> None:
        time.sleep(0.001)
        self.respond.first_token(ids, b"first", [0, 5])
        time.sleep(0.002)
        self.respond.complete(ids, b"all", [0, 3], [index + 2 for index in some])


class Columns(FakeSystem):
    """Answers most of an Offline query in one call, the first samples one by one."""

    def issue(self, ids: Any, indices: Any) -> None:
        assert ids.dtype == indices.dtype == "int64"
        self.respond.complete(ids[100_000:])
        for i in ids[:100_000].tolist():
            self.respond.complete(i)


class Stubborn(FakeSystem):
    """Never answers, and does not end when it is told to."""

    def issue(self, ids: Any, indices: Any) -> None: ...

    def stop(self) -> None:
        time.sleep(60)


class Dated(FakeSystem):
    """Says itself when its answers came; the last are wrong, with more times than there are answers."""

    def issue(self, ids: Any, indices: Any) -> None:
        rows = np.atleast_1d(ids)
        count, one = len(rows), len(rows) == 1
        offsets = range(count + 1)
        self.respond.first_token(ids, b"f" * count, offsets, at_ns=int(rows[0]) + 1000 if one else rows + 1000)
        times = (rows + 2000).tolist()
        self.respond.complete(ids, b"d" * count, offsets, n_tokens=2, at_ns=times[0] if one else times)
        self.respond.complete([8] if one else (9, 8), at_ns=5)
        if not one:
            self.respond.complete((9, 8), at_ns=[1, 2, 3])


class Unconfigured(FakeSystem):
    def start(self, respond: Any) -> None:
        raise InputError("device.toml: write a port")


class RaisesInStart(FakeSystem):
    def start(self, respond: Any) -> None:
        raise ValueError("no such device")


class EndsInStart(FakeSystem):
    def start(self, respond: Any) -> None:
        os._exit(3)


class SleepsInStart(FakeSystem):
    def start(self, respond: Any) -> None:
        time.sleep(60)


class RaisesInIssue(FakeSystem):
    def issue(self, ids: Any, indices: Any) -> None:
        raise ValueError(f"no room for sample {indices}")


class FailsInThread(FakeSystem):
    def _answer(self, ids: Any, some: Any) -> None:
        details = f"{__file__}: the driver's last words"
        threading.Thread(target=self.respond.fail, args=(f"device lost at sample {some[0]}", details)).start()


class KilledInIssue(FakeSystem):
    def issue(self, ids: Any, indices: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class EndsInIssue(FakeSystem):
    """Its own child lives on and holds what it inherited open."""

    def issue(self, ids: Any, indices: Any) -> None:
        if os.fork() == 0:
            time.sleep(5)
        os._exit(7)


class Wrong(FakeSystem):
    """Answers one sample twice, and one that there is not."""

    def issue(self, ids: Any, indices: Any) -> None:
        for i in [17, *ids.tolist(), 1_000_000_007]:
            self.respond.complete(i)


class Announced(FakeSystem):
    """Says which process it runs in."""

    def start(self, respond: Any) -> None:
        super().start(respond)
        print(os.getpid())
        sys.stdout.flush()
