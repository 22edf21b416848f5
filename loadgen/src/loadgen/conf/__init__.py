"""The `model.scenario.key = value` files: `mlperf.conf`, `user.conf`, `audit.config`.

Two readings of one table, `keys`. `strict` refuses whatever the official LoadGen would misread or pass over in
silence; `official` accepts, misreads and ignores exactly what the official one does. A file that strict accepts
means the same to both.

Files apply in order, each over what the ones before it left. Within a file a key is looked up as
`model.scenario.key`, `*.scenario.key`, `model.*.key`, `*.*.key`, and the first one found wins.
"""

from loadgen.conf.official import Outcome, apply_official, from_config, read_official
from loadgen.conf.strict import (
    ConfError,
    ConfWarning,
    Effective,
    Source,
    Text,
    explain,
    format_explanation,
    ignored,
    models_named,
    nearest,
    settings_from,
)

__all__ = [
    "ConfError",
    "ConfWarning",
    "Effective",
    "Outcome",
    "Source",
    "Text",
    "apply_official",
    "explain",
    "format_explanation",
    "from_config",
    "ignored",
    "models_named",
    "nearest",
    "read_official",
    "settings_from",
]
