"""Systems under test around a benchmark's backends.

`BatchingSystem` gathers samples into batches, `StreamingSystem` keeps a generative model's batch full. Which samples
share a batch is `bucketing`'s arithmetic; `waiting` holds those that wait for one.
"""

from loadgen.harness.serving.batching import BatchingSystem, PredictionError, finished
from loadgen.harness.serving.bucketing import Batching
from loadgen.harness.serving.streaming import StreamingSystem

__all__ = ["Batching", "BatchingSystem", "PredictionError", "StreamingSystem", "finished"]
