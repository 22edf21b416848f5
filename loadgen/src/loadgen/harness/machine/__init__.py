"""This machine and a run: what it is (`facts`), what a run would need (`needs`, the `info` command), what is in the way
(`checks`, the `doctor` command), and what its GPUs do meanwhile (`telemetry`)."""
