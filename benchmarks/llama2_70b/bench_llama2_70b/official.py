"""What the official files are called, and the numbers of the official generation. Imports nothing heavy."""

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
"""Names the file of each tensor; beside it lie the files, 15 of them for Llama 2 70B."""
TOKENIZER = "tokenizer.model"
"""SentencePiece's."""
DATA = "open_orca_gpt4_tokenized_llama.sampled_24576.pkl.gz"

BOS, EOS = 1, 2
MAX_NEW = 1024
MIN_NEW = 1
"""Tokens of an answer, the reference's `max_new_tokens` and `min_new_tokens`."""
