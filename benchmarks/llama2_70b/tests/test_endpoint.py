"""The client of a server: beside llama.cpp's own, and where servers fail."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from bench_llama2_70b import backend_endpoint
from bench_llama2_70b.backend_endpoint import Answer, Backend
from bench_llama2_70b.dataset import Batch, Dataset
from bench_llama2_70b.pytorch.backend import Backend as Ours
from loadgen.contracts import BackendOptions, InputError, RequestError

from .vllm_folder import write_folder

PROMPT = np.array([1, 1, 300, 301])


def generate(backend: Any, batch: Batch) -> list[list[int]]:
    """All answers; requests are added as there is room."""
    answers: list[list[int]] = [[] for _ in batch.prompts]
    added = done = 0
    while done < len(answers):
        count = min(backend.room(), len(answers) - added)
        if count:
            numbers = np.arange(added, added + count)
            backend.add(numbers, Batch(batch.prompts[added : added + count], batch.most[numbers]))
            added += count
        tokens = backend.step(1.0)
        for row, request in enumerate(tokens.requests.tolist()):
            answers[request] += tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        done += int(tokens.finished.sum())
    return answers


def test_the_same_tokens_as_our_own_model(at_llama_cpp: str, mini: Path, mini_dataset: Dataset) -> None:
    """llama.cpp computes attention in float16, so a few answers may differ; most of their tokens do not."""
    batch = mini_dataset.gather(np.arange(0, 320, 8))
    server = Backend(BackendOptions(mini / "model", max_batch=8))
    about = server.load()
    theirs = generate(server, batch)
    server.close()
    ours = Ours(BackendOptions(mini / "model", max_batch=40, threads=1))
    ours.load()
    expected = generate(ours, batch)
    ours.close()
    assert about.device == at_llama_cpp
    assert about.versions["model"] == "mini"
    assert about.versions["answers"] == "token ids beside log-probabilities"
    same = sum(a == b for a, b in zip(theirs, expected, strict=True))
    assert same >= 0.9 * len(expected)
    assert len({len(answer) for answer in theirs}) > 5


def test_ids_made_from_text(at_llama_cpp: str, mini: Path, mini_dataset: Dataset, monkeypatch: Any) -> None:
    monkeypatch.setattr(backend_endpoint, "_FORMS", {"text": {}})
    backend = Backend(BackendOptions(mini / "model", max_batch=4))
    assert backend.load().versions["answers"] == "text"
    made = generate(backend, mini_dataset.gather(np.array([0, 100, 200])))
    backend.close()
    for index, ids in zip((0, 100, 200), made, strict=True):
        assert mini_dataset.tokenizer.decode(ids).split()[0] == mini_dataset.references[index].split()[0]
        assert ids[-1] == 2


def test_what_vllm_is_given_is_the_miniature(mini: Path, mini_dataset: Dataset, tmp_path: Path) -> None:
    """By Hugging Face's model, which reads the same files: see `vllm_folder.py`."""
    write_folder(tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype="float32").eval()
    batch = mini_dataset.gather(np.array([0, 100, 200, 300]))
    ours = Ours(BackendOptions(mini / "model", max_batch=4, threads=1))
    ours.load()
    expected = generate(ours, batch)
    ours.close()
    for prompt, answer in zip(batch.prompts, expected, strict=True):
        given = torch.from_numpy(prompt)[None]
        made = theirs.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=128, do_sample=False, pad_token_id=2
        )
        assert made[0, len(prompt) :].tolist() == answer


def event(**content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def token(*ids: int, end: str | None = None) -> bytes:
    return event(choices=[{"text": "x", "token_ids": list(ids), "finish_reason": end}])


DONE = b"data: [DONE]\n\n"
GOOD = [token(7), token(8, end="length"), event(choices=[], usage={"completion_tokens": 2}), DONE]
Script = Callable[[Any], None]


class Scripted(BaseHTTPRequestHandler):
    """Answers as `script` says; the probe is answered well."""

    script: Script
    asked: int
    keys: list[str]
    bodies: list[dict[str, Any]]

    def do_GET(self) -> None:
        self.reply(200, [json.dumps({"data": [{"id": "m"}]}).encode()])

    def do_POST(self) -> None:
        cls = type(self)
        cls.asked += 1
        cls.keys.append(self.headers.get("Authorization", ""))
        cls.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        script = cls.script if cls.asked > 1 else _well
        script(self)

    def reply(self, status: int, pieces: list[bytes], pause: float = 0.0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(sum(map(len, pieces))))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(pause)

    def log_message(self, *_: Any) -> None: ...


def _well(request: Any) -> None:
    request.reply(200, GOOD)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], type[Scripted]]]:
    servers: list[ThreadingHTTPServer] = []

    def start(script: Script) -> type[Scripted]:
        handler = type("Handler", (Scripted,), {"script": script, "asked": 0, "keys": [], "bodies": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1/")
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        return handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def opened(mini: Path, **extra: Any) -> Backend:
    backend = Backend(BackendOptions(mini / "model", max_batch=4, extra=extra))
    backend.load()
    return backend


def test_tokens_come_one_by_one(serve: Any, mini: Path) -> None:
    handler = serve(lambda request: request.reply(200, GOOD, pause=0.1))
    backend = opened(mini)
    assert backend.room() == 4
    backend.add(np.array([5]), Batch([PROMPT], np.array([2])))
    assert backend.room() == 3
    steps = [backend.step(1.0) for _ in range(3)]
    assert [step.ids.tolist() for step in steps] == [[7], [8], []]
    assert [step.finished.tolist() for step in steps] == [[False], [False], [True]]
    assert backend.room() == 4
    assert not len(backend.step(0.01).requests), "nothing runs: nothing comes"
    backend.close()
    assert handler.keys[-1] == "Bearer secret"
    sent = handler.bodies[-1]
    assert (sent["prompt"], sent["max_tokens"], sent["temperature"], sent["stream"]) == (PROMPT.tolist(), 2, 0, True)


def drop(request: Any) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "9999")
    request.end_headers()
    request.wfile.write(GOOD[0])
    request.wfile.flush()
    request.connection.shutdown(socket.SHUT_RDWR)


FAULTS: dict[str, tuple[Script, str]] = {
    "401": (lambda r: r.reply(401, [b"key expired"]), "HTTP 401 .*key expired"),
    "429": (lambda r: r.reply(429, [b'{"error": "slow down"}']), "HTTP 429 .*slow down"),
    "500": (lambda r: r.reply(500, [b"out of memory"]), "HTTP 500 .*out of memory"),
    "gone before it answers": (lambda r: r.connection.shutdown(socket.SHUT_RDWR), "disconnected|reset"),
    "connection cut": (drop, "payload|ayload|closed|Connection"),
    "stream cut": (lambda r: r.reply(200, GOOD[:2]), r"cut off: its stream ended without \[DONE\]"),
    "no reason": (lambda r: r.reply(200, [GOOD[0], DONE]), "cut off: no chunk says why it ended"),
    "slow": (lambda r: r.reply(200, GOOD, pause=2.0), "no answer in time"),
    "malformed chunk": (lambda r: r.reply(200, [b"data: {oops\n\n", DONE]), "a chunk is not JSON: .*oops"),
    "chunk of another kind": (lambda r: r.reply(200, [event(choices=5), DONE]), "not iterable"),
    "line without end": (
        lambda r: r.reply(200, [b"data: " + b"x" * (5 << 20)]),
        "a line of over 1048576 bytes",
    ),
    "error in the stream": (lambda r: r.reply(200, [GOOD[0], event(error="gone")]), "broke off: .*gone"),
    "fewer tokens than said": (
        lambda r: r.reply(200, [*GOOD[:2], event(choices=[], usage={"completion_tokens": 9}), DONE]),
        "says that it made 9 tokens, but 2 came",
    ),
}


def _steps(backend: Backend) -> None:
    for _ in range(20):
        backend.step(0.5)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_its_request(fault: str, serve: Any, mini: Path) -> None:
    script, message = FAULTS[fault]
    handler = serve(script)
    backend = opened(mini, silent_s=0.5)
    backend.add(np.array([11]), Batch([PROMPT], np.array([4])))
    with pytest.raises(RequestError, match=message) as raised:
        _steps(backend)
    backend.close()
    assert raised.value.request == 11
    assert str(raised.value).startswith(backend.server.address), "it says whose fault it is"
    assert "the server's log" in str(raised.value)
    assert handler.asked == 2, "nothing is sent twice"


@pytest.mark.parametrize(
    ("status", "message"), [(401, "HTTP 401 .*OPENAI_API_KEY"), (404, "HTTP 404"), (503, "HTTP 503 .*server is up")]
)
def test_a_server_that_refuses_is_the_users_to_mend(
    status: int, message: str, serve: Any, mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = serve(lambda request: request.reply(status, [b"no"]))
    handler.asked = 1
    backend = Backend(BackendOptions(mini / "model"))
    with pytest.raises(InputError, match=message):
        backend.load()
    backend.close()


def test_there_may_be_as_many_connections_as_requests(serve: Any, mini: Path) -> None:
    """Systems start a process with 1,024 open files at the most, fewer than a large batch needs."""
    serve(_well)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        backend = Backend(BackendOptions(mini / "model", max_batch=200))
        backend.load()
        backend.close()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 200 + backend_endpoint.SPARE_FILES
        if hard != resource.RLIM_INFINITY:
            with pytest.raises(InputError, match=rf"--batch {hard}: .* may open {hard} files.* or give --batch \d+$"):
                Backend(BackendOptions(mini / "model", max_batch=hard)).load()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_server(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    backend = Backend(BackendOptions(mini / "model"))
    with pytest.raises(InputError, match=f"127.0.0.1:{port}.*Check OPENAI_BASE_URL"):
        backend.load()
    backend.close()
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    with pytest.raises(InputError, match="OPENAI_BASE_URL is 'localhost:8000': set it"):
        Backend(BackendOptions(mini / "model"))


@pytest.mark.parametrize("listed", [{"data": [{"id": "a"}, {"id": "b"}]}, {"data": []}, {"oops": 1}, []])
def test_a_model_must_be_named_where_there_are_several(listed: Any, serve: Any, mini: Path) -> None:
    handler = serve(_well)
    handler.do_GET = lambda self: self.reply(200, [json.dumps(listed).encode()])
    backend = Backend(BackendOptions(mini / "model"))
    with pytest.raises(InputError, match=r"serves (a, b|nothing): name one by OPENAI_MODEL|no list of models"):
        backend.load()
    backend.close()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([{"token_ids": [5, 6]}, {"finish_reason": "stop"}], [5, 6]),
        ([{"logprobs": {"tokens": ["token_id:5", "token_id:2"]}, "finish_reason": "stop"}], [5, 2]),
        ([{"logprobs": {"content": [{"id": 5, "token": "a"}]}}, {"finish_reason": "length"}], [5]),
    ],
)
def test_ids_are_found_where_servers_put_them(chunks: list[dict[str, Any]], expected: list[int]) -> None:
    answer = Answer(None)
    ids = [number for chunk in chunks for number in answer.take({"choices": [chunk]})]
    assert [*ids, *answer.rest()] == expected


def test_an_end_that_is_counted_and_not_shown_is_added() -> None:
    answer = Answer(None)
    ids = answer.take({"choices": [{"token_ids": [5], "finish_reason": "stop"}], "usage": {"completion_tokens": 2}})
    assert [*ids, *answer.rest()] == [5, 2]
