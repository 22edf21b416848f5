"""How many streams a second the client of a server takes, beside a server that echoes: `python speed/client.py`.

The server is a process of its own. Processor time says what the client costs where others use the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from bench_llama2_70b.backend_endpoint import Backend
from bench_llama2_70b.dataset import Batch
from bench_llama2_70b.official import TOKENIZER
from bench_llama2_70b.standins.miniature import read_tokenizer_bytes
from loadgen.contracts import BackendOptions


def answer(tokens: int) -> bytes:
    """A whole response: so many tokens, each in a chunk."""
    chunks = [{"choices": [{"text": "x", "token_ids": [number]}]} for number in range(3, 3 + tokens)]
    chunks[-1]["choices"][0]["finish_reason"] = "length"
    lines = [*(json.dumps(chunk) for chunk in chunks), "[DONE]"]
    body = "".join(f"data: {line}\n\n" for line in lines).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


async def _serve(tell: Connection, response: bytes) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(response)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0, backlog=1024)
    tell.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(tell: Connection, response: bytes) -> None:
    """The server's process."""
    asyncio.run(_serve(tell, response))


def streams(backend: Backend, count: int) -> None:
    """Send so many prompts of 280 tokens, and take their answers."""
    prompt, added, done = np.arange(3, 283), 0, 0
    while done < count:
        new = min(backend.room(), count - added)
        if new:
            backend.add(np.arange(added, added + new), Batch([prompt] * new, np.full(new, 1024)))
            added += new
        done += int(backend.step(1.0).finished.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=1, help="of an answer; each is a chunk")
    parser.add_argument("--batch", type=int, default=256, help="streams at once")
    args = parser.parse_args()
    ours, theirs = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=serve, args=(theirs, answer(args.tokens)), daemon=True)
    server.start()
    os.environ |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{ours.recv()}/v1", "OPENAI_MODEL": "echo"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / TOKENIZER).write_bytes(read_tokenizer_bytes())
        backend = Backend(BackendOptions(Path(folder), max_batch=args.batch))
        backend.load()
        began, worked = time.perf_counter(), time.process_time()
        streams(backend, args.streams)
        took, worked = time.perf_counter() - began, time.process_time() - worked
        backend.close()
    server.kill()
    print(f"{args.streams / took:.0f} streams/s of {args.tokens} tokens; the client takes", end=" ")
    print(f"{1e6 * worked / args.streams:.0f} us of processor time a stream")


if __name__ == "__main__":
    main()
