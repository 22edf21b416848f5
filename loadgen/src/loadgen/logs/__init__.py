"""The log files of a run: written while it goes on, and read back.

`summary`, `detail`, `accuracy` and `trace` have a file of the official LoadGen each. Layout, keys and their order, and
number formats are its own, so that its checker and tools read our files, and ours read its. `entries` says which keys
stand in the detail log; `result` is our own `result.json`; `files` says where all of them lie, `write` writes them,
and `text` makes lines of columns.
"""

from loadgen.logs.accuracy import AccuracyEntry, AccuracyLog, read_accuracy
from loadgen.logs.detail import detail_text, metrics_of, number, read_detail
from loadgen.logs.entries import effective_entries, header_entries, own_version, requested_entries, verdict_entries
from loadgen.logs.files import LogError, LogSettings, in_folder
from loadgen.logs.result import result_record
from loadgen.logs.summary import read_summary, summary_text
from loadgen.logs.trace import read_trace
from loadgen.logs.write import Writer
from loadgen.notes import DetailEntry

__all__ = [
    "AccuracyEntry",
    "AccuracyLog",
    "DetailEntry",
    "LogError",
    "LogSettings",
    "Writer",
    "detail_text",
    "effective_entries",
    "header_entries",
    "in_folder",
    "metrics_of",
    "number",
    "own_version",
    "read_accuracy",
    "read_detail",
    "read_summary",
    "read_trace",
    "requested_entries",
    "result_record",
    "summary_text",
    "verdict_entries",
]
