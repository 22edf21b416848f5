"""The rules of each round, as data: seeds, settings, limits, accuracy targets, categories.

One TOML file a round stands beside this module, and no rule's number stands anywhere else. v4.0 is written out; every
other round says how it differs from its neighbour (`based_on`). Models go by their names in config files ("bert",
"dlrm-v2").
"""

from loadgen.rules.accuracy import Accuracy, Limits, Metric, RulesError
from loadgen.rules.load import load_round, round_names
from loadgen.rules.model import ModelRules, TokenLimits
from loadgen.rules.round import ComplianceTest, Layout, Round, SubmissionRules
from loadgen.rules.table import table

__all__ = [
    "Accuracy",
    "ComplianceTest",
    "Layout",
    "Limits",
    "Metric",
    "ModelRules",
    "Round",
    "RulesError",
    "SubmissionRules",
    "TokenLimits",
    "load_round",
    "round_names",
    "table",
]
