"""Compliance tests: whether a run's logs pass TEST01, TEST04, TEST05 or TEST06, and where the proof of it goes.

`verify` judges the logs of a test's run, whoever made them; `place` writes what a submission holds. How to run a test
is `loadgen.rules.Round.audit_text`; `loadgen.harness.comply` does all of it for a benchmark.
"""

from loadgen.compliance.place import place
from loadgen.compliance.verdict import Check, Verdict
from loadgen.compliance.verify import Runs, verify

__all__ = ["Check", "Runs", "Verdict", "place", "verify"]
