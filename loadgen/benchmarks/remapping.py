"""What it costs to keep TensorFlow's remapper off, and what it changes: one frozen graph, both ways, in turn.

    python loadgen/benchmarks/remapping.py model.pb --size 384

Prints processor seconds of a run, the median of each, and the greatest difference of an output. Sessions have one
thread, so that other work on the machine counts little. Needs tensorflow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from loadgen.contracts import BackendOptions
from loadgen.harness.runtimes import tensorflow as room


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("--output", default="", help="Tensor to compute; by default what the graph's last node gives.")
    parser.add_argument("--size", type=int, default=384, help="Of each dimension that the graph leaves open, but one.")
    parser.add_argument("--rows", type=int, default=1, help="Of the first dimension, if the graph leaves it open.")
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    frozen = room.read_graph(asked.graph, "cpu")
    output = asked.output or _last(frozen.graph)
    feed = _feed(frozen.graph, asked.rows, asked.size)
    ours = room.open_session(frozen, BackendOptions(asked.graph.parent, threads=1))
    off = ours._config.graph_options.rewrite_options.remapping == rewriter_config_pb2.RewriterConfig.OFF
    print(f"{asked.graph.name}, {output}: our sessions have the remapper {'off' if off else 'on'}")
    _compare(_session(frozen, False), _session(frozen, True), output, feed, asked.runs)


def _last(graph: tf.Graph) -> str:
    used = {tensor.op.name for operation in graph.get_operations() for tensor in operation.inputs}
    ends = [op for op in graph.get_operations() if op.name not in used and op.outputs and op.type != "ReadVariableOp"]
    return str(ends[-1].outputs[0].name)


def _feed(graph: tf.Graph, rows: int, size: int) -> dict[str, Any]:
    """Ones for whole numbers, which every table of embeddings has, and random numbers."""
    rng, feed = np.random.default_rng(0), {}
    for operation in graph.get_operations():
        if operation.type == "Placeholder":
            tensor = operation.outputs[0]
            shape = [n or (size if axis else rows) for axis, n in enumerate(tensor.shape.as_list())]
            whole = tensor.dtype.is_integer
            feed[tensor.name] = np.ones(shape, np.int64) if whole else rng.standard_normal(shape)
    return feed


def _session(frozen: room.Frozen, remaps: bool) -> tf.compat.v1.Session:
    """As `open_session`, but remapped or not as one says."""
    settings = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    kinds = rewriter_config_pb2.RewriterConfig
    settings.graph_options.rewrite_options.remapping = kinds.ON if remaps else kinds.OFF
    session = tf.compat.v1.Session(graph=frozen.graph, config=settings)
    session.run("fill", frozen.matrices)
    return session


def _compare(off: tf.compat.v1.Session, on: tf.compat.v1.Session, output: str, feed: dict[str, Any], runs: int) -> None:
    exact, remapped = off.run(output, feed), on.run(output, feed)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for session, taken in zip((off, on), seconds, strict=True):
            began = time.process_time()
            session.run(output, feed)
            taken.append(time.process_time() - began)
    without, with_it = (statistics.median(taken) for taken in seconds)
    print(f"off {without:.4f} s, on {with_it:.4f} s: {without / with_it:.3f} times")
    print(f"greatest difference {np.abs(exact - remapped).max():.3g}, of outputs up to {np.abs(exact).max():.3g}")


if __name__ == "__main__":
    main()
