"""What stands in for the official files: made here, in the official formats, and read by the same code.

The miniature is a small trained Llama with generated instructions; `synthetic` has the full sizes and random weights.
Neither is a benchmark result.
"""

DATA = "open_orca_gpt4_tokenized_llama.sampled_320.pkl.gz"
"""The miniature's data, named as the official file is: by its number of samples."""
COUNT = 320
MAX_NEW = 128
"""Tokens of an answer of the miniature, an eighth of the benchmark's 1,024."""
