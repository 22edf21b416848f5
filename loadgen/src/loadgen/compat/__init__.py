"""The official Python API, name for name: `import loadgen.compat as mlperf_loadgen`.

An existing submission runs unchanged on this load generator. Handles and sample ids are integers that are
never 0; responses point to raw addresses, which are read only for answers that are logged.

`api` has the functions; `settings` the classes of settings; `samples` what queries and answers are made of; `threads`
those that a submission lends to a test.

Beyond the official binding: `AbortTest`, `RegisterIssueQueryThread` and `TestSettings.revision`.
"""

from loadgen.compat.api import (
    AbortTest,
    ConstructFastSUT,
    ConstructQDL,
    ConstructQSL,
    ConstructSUT,
    DestroyFastSUT,
    DestroyQDL,
    DestroyQSL,
    DestroySUT,
    FirstTokenComplete,
    QuerySamplesComplete,
    RegisterIssueQueryThread,
    StartTest,
    StartTestWithLogSettings,
)
from loadgen.compat.samples import QuerySample, QuerySampleResponse, VectorQuerySample, VectorQuerySampleResponse
from loadgen.compat.settings import (
    LoggingMode,
    LogOutputSettings,
    LogSettings,
    TestMode,
    TestScenario,
    TestSettings,
)

__all__ = [
    "AbortTest",
    "ConstructFastSUT",
    "ConstructQDL",
    "ConstructQSL",
    "ConstructSUT",
    "DestroyFastSUT",
    "DestroyQDL",
    "DestroyQSL",
    "DestroySUT",
    "FirstTokenComplete",
    "LogOutputSettings",
    "LogSettings",
    "LoggingMode",
    "QuerySample",
    "QuerySampleResponse",
    "QuerySamplesComplete",
    "RegisterIssueQueryThread",
    "StartTest",
    "StartTestWithLogSettings",
    "TestMode",
    "TestScenario",
    "TestSettings",
    "VectorQuerySample",
    "VectorQuerySampleResponse",
]
