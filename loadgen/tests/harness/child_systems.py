"""Systems that `test_process` runs in a process of their own: each does one thing, most of them one wrong thing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

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
        threading.Thread(target=self.respond.fail, args=(f"device lost at sample {some[0]}",)).start()


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
