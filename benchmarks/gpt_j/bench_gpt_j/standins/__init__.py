"""What stands in for the official files: made here, in the official formats, and read by the same code.

The miniature is a small trained GPT-J with generated news; `synthetic` has the full sizes and random weights. Neither
is a benchmark result.
"""

COUNT = 320
"""Articles of the miniature."""
LONGEST = 192
"""Tokens of a prompt of the miniature."""
MIN_NEW, MAX_NEW = 16, 34
"""Tokens of an answer of the miniature, as binding as the benchmark's 30 and 128."""
