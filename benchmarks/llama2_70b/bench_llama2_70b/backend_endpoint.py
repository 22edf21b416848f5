"""Llama on a server: any that speaks OpenAI's completions (vLLM, SGLang, TensorRT-LLM, llama.cpp), on any hardware.

Where it is, the environment says, as for other clients: OPENAI_BASE_URL (http://host:8000/v1), OPENAI_API_KEY if it
wants one, OPENAI_MODEL if it serves several. `--batch` is how many requests are sent at once; the server queues or
batches them. Nothing is sent twice: a request that fails ends the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import resource
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import aiohttp

from bench_llama2_70b.dataset import Batch
from bench_llama2_70b.official import BOS, EOS, MIN_NEW, TOKENIZER
from bench_llama2_70b.tokenizer import Tokenizer, read_tokenizer
from loadgen.contracts import I64, BackendOptions, InputError, Loaded, RequestError, Tokens
from loadgen.harness.runtimes.devices import only_cpu
from loadgen.harness.serving.streaming import tokens_of

CONNECT_S = 10.0
"""Longest time until a connection is there."""
SILENT_S = 300.0
"""Longest time without a byte of an answer that has begun, or of the first: a server may queue. `silent_s` of the
profile's model options replaces it."""
SPARE_FILES = 256
"""Open files for all but connections: logs, libraries, what a device needs."""
_DATA = b"data:"
_LINE = 1 << 20  # bytes of the longest line that is read

_FORMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "token ids": {"min_tokens": MIN_NEW, "return_token_ids": True},  # vLLM
        "token ids beside log-probabilities": {"logprobs": 1, "return_tokens_as_token_ids": True},  # SGLang, llama.cpp
        "text": {},  # our tokenizer makes ids of it
    }
)
"""What an answer can be asked for, the best first: fields of the request."""


class Refused(Exception):
    """The server said no, or something that is no answer."""


@dataclass(frozen=True)
class Server:
    """Where requests go, and what they hold."""

    address: str
    key: str
    model: str

    @staticmethod
    def from_environment() -> Server:
        """Raises InputError if it does not say where the server is."""
        address = os.environ.get("OPENAI_BASE_URL", "").rstrip("/")
        if not address.startswith(("http://", "https://")):
            raise InputError(
                f"OPENAI_BASE_URL is {address!r}: set it to your server's address, such as http://localhost:8000/v1"
            )
        return Server(address, os.environ.get("OPENAI_API_KEY", ""), os.environ.get("OPENAI_MODEL", ""))

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def allow_connections(count: int) -> None:
    """Let this process have so many open, beside its files: systems start one with 1,024 of both.

    Raises InputError if nobody may raise the limit so far.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE_FILES
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise InputError(
            f"--batch {count}: each request has a connection, and this process may open {hard} files: let it open "
            f"{needed} (ulimit -Hn, or --ulimit nofile={needed} of a container), or give --batch {hard - SPARE_FILES}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class Backend:
    """See `loadgen.contracts.TokenBackend`. Requests live in the event loop of a thread; steps collect what came."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError if the environment names no server."""
        only_cpu(BackendOptions(options.model, options.devices))
        self.options, self.server = options, Server.from_environment()
        self.silent_s = float(options.extra.get("silent_s", SILENT_S))
        self._came: queue.SimpleQueue[tuple[int, list[int], bool, Exception | None]] = queue.SimpleQueue()
        self._running = 0

    def load(self) -> Loaded:
        """Ask for one token, in the best form that the server knows. Raises InputError for what a person can mend."""
        allow_connections(self.options.max_batch)
        self._tokenizer = read_tokenizer(self.options.model / TOKENIZER)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._session = self._wait(self._open())
        try:
            if not self.server.model:
                self.server = Server(self.server.address, self.server.key, self._wait(self._only_model()))
            self.form, self.as_text = self._wait(self._probe())
        except (aiohttp.ClientError, OSError, TimeoutError, Refused) as error:
            raise InputError(
                f"{self.server.address}: {_said(error)}. Check OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL, "
                "and that the server is up"
            ) from error
        sent = "text" if self.as_text else "token ids"
        about = {"model": self.server.model, "prompts": sent, "answers": self.form, "aiohttp": aiohttp.__version__}
        return Loaded(self.server.address, "served", about)

    def room(self) -> int:
        """Requests that are not sent yet, of `--batch`."""
        return self.options.max_batch - self._running

    def add(self, requests: I64, batch: Batch) -> None:
        """Each becomes a request of its own."""
        for request, prompt, most in zip(requests.tolist(), batch.prompts, batch.most.tolist(), strict=True):
            self._running += 1
            asyncio.run_coroutine_threadsafe(self._answer(request, prompt.tolist(), most), self._loop)

    def step(self, timeout_s: float) -> Tokens:
        """What came since the last step; waits for it. Raises RequestError for the first that failed."""
        rows: dict[int, tuple[list[int], bool]] = {}
        try:
            came = self._came.get(timeout=timeout_s)
            while True:
                request, ids, is_last, error = came
                if error:
                    said = f"{self.server.address}: {_said(error)}; the server's log may say why"
                    raise RequestError(request, said) from error
                before = rows.get(request, ([], False))[0]
                rows[request] = (before + ids, is_last)
                came = self._came.get_nowait()
        except queue.Empty:
            pass
        self._running -= sum(is_last for _, is_last in rows.values())
        return tokens_of([(request, ids, is_last) for request, (ids, is_last) in rows.items()])

    def close(self) -> None:
        """Leaves the requests that still run: the server sees their connections close."""
        if "_loop" not in self.__dict__:
            return
        if "_session" in self.__dict__:
            self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # Some servers say that they keep a connection and close it after a stream: a request that takes it from
            # the pool is lost, and sending it again would be a hidden retry. `keep_alive` is for those that mean it.
            connector=aiohttp.TCPConnector(
                limit=self.options.max_batch + 1, force_close=not self.options.extra.get("keep_alive", False)
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self.silent_s),
            headers=self.server.headers,
            read_bufsize=_LINE,
        )

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._session.close()

    async def _only_model(self) -> str:
        """The one that the server serves."""
        async with self._session.get(f"{self.server.address}/models") as response:
            await _check(response)
            try:
                listed = [str(one["id"]) for one in (await response.json(content_type=None))["data"]]
            except (ValueError, KeyError, TypeError) as error:
                raise Refused(f"/models gives no list of models ({error!r})") from error
        if len(listed) != 1:
            raise InputError(f"{self.server.address} serves {', '.join(listed) or 'nothing'}: name one by OPENAI_MODEL")
        return listed[0]

    async def _probe(self) -> tuple[str, bool]:
        """(form of answers, are prompts sent as text?): the first that gives ids, else the first that works."""
        working: list[tuple[str, bool]] = []
        first: Refused | None = None
        for as_text in (False, True):
            for form in _FORMS:
                try:
                    prompt = [BOS, BOS, self._tokenizer.bare_space()]
                    chunks = [
                        one async for some in self._stream(self._request(prompt, 2, form, as_text)) for one in some
                    ]
                except Refused as error:
                    first = first or error
                    continue
                if any(_ids(one) for one in chunks):
                    return form, as_text
                working.append((form, as_text))
            if working:
                return "text", working[0][1]
        raise first or Refused("it gives no answers")

    def _request(self, prompt: list[int], most: int, form: str, as_text: bool) -> dict[str, Any]:
        forced = {"ignore_eos": True, "min_tokens": most} if "seed" in self.options.extra else {}
        return {
            "model": self.server.model,
            "prompt": self._tokenizer.decode(prompt) if as_text else prompt,
            "max_tokens": most,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **_FORMS[form],
            **forced,
        }

    async def _answer(self, request: int, prompt: list[int], most: int) -> None:
        """Puts the tokens of one answer into the queue as they come."""
        answer = Answer(None if self.form != "text" else self._tokenizer)
        try:
            async for chunks in self._stream(self._request(prompt, most, self.form, self.as_text)):
                if new := [token for chunk in chunks for token in answer.take(chunk)]:
                    self._came.put((request, new, False, None))
            self._came.put((request, answer.rest(), True, None))
        except Exception as error:  # whatever it is, `step` raises it: a request that is never heard of would hang
            self._came.put((request, [], True, error))

    async def _stream(self, body: Mapping[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        """The chunks of one answer, as many together as came together. Raises Refused for anything that is none, or for
        an end before the end."""
        rest = b""
        async with self._session.post(f"{self.server.address}/completions", json=body) as response:
            await _check(response)
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                values = [line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA)]
                if b"[DONE]" in values:
                    yield [_chunk(value) for value in values[: values.index(b"[DONE]")]]
                    return
                if len(rest) > _LINE:
                    raise Refused(f"a line of over {_LINE} bytes: {rest[:200]!r}")
                yield [_chunk(value) for value in values]
        raise Refused("the answer was cut off: its stream ended without [DONE]")


class Answer:
    """The tokens of one answer, from its chunks."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        """tokenizer: makes ids of text, for a server that gives none."""
        self._tokenizer, self._text, self._first = tokenizer, "", 0
        self._count, self._said, self._ended = 0, None, ""

    def take(self, chunk: Mapping[str, Any]) -> list[int]:
        """Its new ids. From text only the first is known before the end."""
        self._said = (chunk.get("usage") or {}).get("completion_tokens", self._said)
        for choice in chunk.get("choices", []):
            self._ended = choice.get("finish_reason") or self._ended
            self._text += choice.get("text") or ""
        new = _ids(chunk) if self._tokenizer is None else self._first_of_text()
        self._count += len(new)
        return new

    def _first_of_text(self) -> list[int]:
        if self._count or not self._text or not self._tokenizer:
            return []
        return self._tokenizer.encode(self._text)[:1]

    def rest(self) -> list[int]:
        """The ids that are left at the end. Raises Refused if the server counted more than it sent."""
        if not self._ended:
            raise Refused("the answer was cut off: no chunk says why it ended")
        if self._tokenizer is not None:
            return [*self._tokenizer.encode(self._text)[self._count :], *([EOS] if self._ended == "stop" else [])]
        left = self._count if self._said is None else int(self._said)
        if left == self._count + 1 and self._ended == "stop":
            return [EOS]  # it counts the end of the answer, and does not show it
        if left > self._count:
            raise Refused(f"the server says that it made {left} tokens, but {self._count} came")
        return []


def _ids(chunk: Mapping[str, Any]) -> list[int]:
    """The token ids of a chunk, wherever its server puts them; none if it gives text alone."""
    found: list[int] = []
    for choice in chunk.get("choices", []):
        beside = choice.get("logprobs") or {}
        if choice.get("token_ids"):
            found += choice["token_ids"]
        elif beside.get("content"):
            found += [one["id"] for one in beside["content"] if "id" in one]
        else:
            named = [str(one).partition("token_id:") for one in beside.get("tokens") or []]
            found += [int(number) for _, sign, number in named if sign]
    return found


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise Refused(f"a chunk is not JSON: {data[:200]!r}") from error
    if not isinstance(chunk, dict) or "error" in chunk:
        raise Refused(f"the server broke off: {data[:300].decode(errors='replace').strip()}")
    return chunk


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        text = (await response.text(errors="replace")).strip()
        raise Refused(f"HTTP {response.status} {response.reason}: {text[:300]}")


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in time ({type(error).__name__}: {error or f'{CONNECT_S:g} s to connect, then silence'})"
    return str(error) or type(error).__name__
