"""A pure-Python load generator for inference benchmarks, compatible with MLPerf LoadGen.

Import from the modules: `loadgen.run`, `loadgen.settings`, `loadgen.contracts`, `loadgen.logs`.
Importing `loadgen` itself loads nothing.
"""
