"""Writes golden/pandas.json: tables that the pandas and NumPy of the reference pickle, under names of their own.

`pip install pandas==2.1.1 numpy==1.26.4`, then `python tests/make_golden.py`. The tests need only the file: they see
that our reader, which does without pandas, finds the rows below in each.
"""

from __future__ import annotations

import base64
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("golden") / "pandas.json"
ROWS: list[dict[str, Any]] = [
    {"origin": "cot", "system_prompt": "Think.", "question": "One?", "output": "It is “one”.", "tok_input": [1, 1, 9]},
    {"origin": "flan", "system_prompt": "", "question": "Two?", "output": "Two\nlines.", "tok_input": [1, 1, 31999, 5]},
    {"origin": "niv", "system_prompt": "Look.", "question": "Three?", "output": "Three.", "tok_input": [1, 1, 29871]},
    {"origin": "t0", "system_prompt": "", "question": "Four?", "output": "Four.", "tok_input": [1, 1, 7, 8, 29871]},
]
"""The columns that `processorca.py` gives the official file; those that follow from others are added below."""


def tables() -> dict[str, Any]:
    """What pandas makes of ROWS: whole, drawn by origin, with ids as Parquet gives them, in another order."""
    import numpy as np
    import pandas as pd

    assert (pd.__version__, np.__version__) == ("2.1.1", "1.26.4")
    whole = pd.DataFrame(ROWS)
    whole["input"] = "<s>[INST] " + whole["question"] + " [/INST]"
    whole["tok_output"] = whole["tok_input"].map(lambda ids: ids[2:])
    for name in ("tok_input", "tok_output"):
        whole[f"{name}_length"] = whole[name].map(len)
    drawn = pd.concat([whole[whole["origin"] == origin].sample(1, random_state=1337) for origin in whole["origin"]])
    arrays = whole.assign(tok_input=whole["tok_input"].map(np.array), tok_output=whole["tok_output"].map(np.array))
    moved = whole[sorted(whole.columns)].copy()  # numbers between texts
    return {"whole": whole, "drawn": drawn, "arrays": arrays, "moved": moved}


def main() -> None:
    """In the protocol of `to_pickle`, and in an older one; gzipped as the official file is."""
    made = {
        f"{name}, protocol {protocol}": gzip.compress(pickle.dumps(table, protocol), mtime=0)
        for name, table in tables().items()
        for protocol in (4, 5)
    }
    FILE.write_text(json.dumps({name: base64.b64encode(data).decode() for name, data in made.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
