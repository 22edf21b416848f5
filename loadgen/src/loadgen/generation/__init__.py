"""What a test issues, drawn before it starts: which samples, in which order, due when. Pure: settings in, columns out.

`rng` has libstdc++'s random numbers, `samples` chooses sets and indices with them, `schedule` makes `Series`: all
queries that one loaded set could need.
"""

from loadgen.generation.rng import Indices
from loadgen.generation.samples import LoadableSet, LogSampler, loadable_sets
from loadgen.generation.schedule import Series, expected_queries, plan

__all__ = ["Indices", "LoadableSet", "LogSampler", "Series", "expected_queries", "loadable_sets", "plan"]
