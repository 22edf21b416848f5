"""What the official files are called, and the numbers of the official generation. Imports nothing heavy."""

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
"""Names the file of each tensor; beside it lie the files."""
BIN_INDEX, BIN = "pytorch_model.bin.index.json", "pytorch_model.bin"
"""The same in PyTorch's own format, where there is no other."""
TOKENIZER = "tokenizer.json"
DATA = "cnn_eval.json"

INSTRUCTION = "Summarize the following news article:"
PROMPT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
"""The reference's prompt, byte for byte."""
END = "<|endoftext|>"
"""The token that ends an answer: 50256 in GPT-J."""
LONGEST = 1919
"""Tokens of a prompt: the reference cuts off what follows, of 399 articles the end of the prompt too."""
BEAMS = 4
MIN_NEW, MAX_NEW = 30, 128
"""Tokens of an answer, the reference's `min_new_tokens` and `max_new_tokens`."""
