"""What the benchmark apps share: command line, batching, progress, results. Imports the core."""
