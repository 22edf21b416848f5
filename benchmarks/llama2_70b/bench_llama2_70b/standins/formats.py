"""Writes the official formats: a Hugging Face folder's weights, and OpenOrca as pandas pickles it.

pandas itself is not needed: what its pickle holds is written out here, and the tests read it with pandas.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_llama2_70b.official import BOS
from bench_llama2_70b.standins.generate import Example
from bench_llama2_70b.standins.prompts import prompt_ids
from bench_llama2_70b.tokenizer import Tokenizer
from loadgen.harness.files import whole_file
from loadgen.harness.runtimes import safetensors

Array: TypeAlias = "npt.NDArray[Any]"
Columns: TypeAlias = "Mapping[str, Sequence[Any]]"


def write_weights(index: Path, tensors: Mapping[str, Array], shards: int) -> None:
    """The index, and safetensors files of about the same size beside it."""
    safetensors.write(index, tensors, shards)


def write_data(path: Path, examples: Sequence[Example], tokenizer_model: bytes) -> None:
    """The reference's columns, gzipped and pickled."""
    with whole_file(path) as part:
        part.write_bytes(gzip.compress(pickled(columns(examples, Tokenizer(tokenizer_model))), mtime=0))


def columns(examples: Sequence[Example], tokenizer: Tokenizer) -> Columns:
    """As the reference's `processorca.py` leaves them; answers are tokenised with one <s> before them."""
    prompts = [prompt_ids(example, tokenizer) for example in examples]
    answers = [[BOS, *tokenizer.encode(example.output)] for example in examples]
    return {
        "system_prompt": [example.system for example in examples],
        "question": [example.question for example in examples],
        "output": [example.output for example in examples],
        "origin": [example.origin for example in examples],
        "input": [example.prompt for example in examples],
        "tok_input": prompts,
        "tok_output": answers,
        "tok_input_length": [len(ids) for ids in prompts],
        "tok_output_length": [len(ids) for ids in answers],
    }


def pickled(table: Columns) -> bytes:
    """What pandas 2 pickles of a table whose columns are objects and, the last ones, whole numbers."""
    whole = [name for name, values in table.items() if isinstance(values[0], int)]
    objects = [name for name in table if name not in whole]
    count = len(table[objects[0]])
    blocks = [_block(_objects([table[name] for name in objects]), 0)]
    if whole:
        blocks.append(_block(np.array([table[name] for name in whole], np.int64), len(objects)))
    names = _call("pandas.core.indexes.base", "_new_Index", _name("pandas.core.indexes.base", "Index"),
                  _value({"data": _objects([*objects, *whole]), "name": None}))  # fmt: skip
    numbers = _call("pandas.core.indexes.base", "_new_Index", _name("pandas.core.indexes.range", "RangeIndex"),
                    _value({"name": None, "start": 0, "stop": count, "step": 1}))  # fmt: skip
    axes = pickle.EMPTY_LIST + pickle.MARK + names + numbers + pickle.APPENDS
    manager = _call("pandas.core.internals.managers", "BlockManager", _tuple(*blocks), axes)
    rest = _value({"_typ": "dataframe", "_metadata": [], "attrs": {}, "_flags": {"allows_duplicate_labels": True}})
    state = rest + _value("_mgr") + manager + pickle.SETITEM
    frame = _name("pandas.core.frame", "DataFrame") + pickle.EMPTY_TUPLE + pickle.NEWOBJ + state + pickle.BUILD
    return pickle.PROTO + bytes([_PROTOCOL]) + frame + pickle.STOP


_PROTOCOL = 3
"""The last whose pieces can follow each other in one pickle: later ones number what they made."""


def _objects(values: Sequence[Any]) -> Array:
    """[n] or, of lists of columns, [n, m] of Python objects; lists inside stay lists."""
    if isinstance(values[0], str):
        made = np.empty(len(values), object)
        made[:] = values
        return made
    made = np.empty((len(values), len(values[0])), object)
    for row, column in zip(made, values, strict=True):
        for number, value in enumerate(column):
            row[number] = value
    return made


def _block(values: Array, first: int) -> bytes:
    """Columns [n, rows] of one kind, the first of which is column `first` of the table."""
    place = slice(first, first + len(values), 1)
    return _call("pandas._libs.internals", "_unpickle_block", _value(values), _value(place), _value(2))


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _value(value: Any) -> bytes:
    return pickle.dumps(value, _PROTOCOL)[2:-1]  # without the protocol before and the stop after it


def _tuple(*parts: bytes) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    return _name(module, name) + _tuple(*arguments) + pickle.REDUCE
