"""Every rule of the checker in one table: id, what is asked for, how to mend it, what the official checker does."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from loadgen.submission.findings import Finding, Official, Rule

FAILS, LOGS, SILENT, STOPS = Official.FAILS, Official.LOGS, Official.SILENT, Official.STOPS

_LAYOUT = [
    ("nothing-here", "A submission has results.", "Give the folder that holds closed/, open/ or network/.", SILENT),
    ("root-file", "The root holds only closed, open, network, and .md or .pdf files.", "Remove the file.", FAILS),
    ("unknown-division", "A division is closed, open or network.", "Rename the folder, or remove it.", LOGS),
    ("division-file", "A division holds only submitters' folders.", "Move the file into one, or remove it.", FAILS),
    ("no-results-folder", "A submitter has a folder results/.", "Build it, or remove the submitter's folder.", SILENT),
    ("broken-link", "Every link leads to a file.", "Put the file itself there, or remove the link.", FAILS),
    ("big-file", "A file has at most 50 MB.", "Leave it out; shorten an accuracy log by `submission truncate`.", FAILS),
    ("hidden-name", "No name begins with a dot.", "Rename it, or remove it.", FAILS),
    ("space-in-name", "No name has a space.", "Rename it.", FAILS),
    ("pycache", "No __pycache__ folder is submitted.", "Remove it.", FAILS),
    ("empty-folder", "No folder is empty.", "Remove it, or put in what belongs there.", FAILS),
    ("mapping-unreadable", "model_mapping.json is a JSON object of names.", "Write model names to names.", STOPS),
]
_SYSTEM = [
    ("system-missing", "A system with results has systems/<system>.json.", "Write it: `submission system`.", FAILS),
    ("system-unreadable", "The system description is a JSON object.", "Mend the JSON at that line.", STOPS),
    ("system-status", "status is available, preview or rdi.", "Set status.", FAILS),
    ("system-type", "system_type is datacenter, edge, or both with a comma.", "Set system_type.", FAILS),
    ("system-field-missing", "The round's fields are all there.", "Add the field; an empty text if it may be.", FAILS),
    ("system-field-empty", "Fields that say what the system is are not empty.", "Fill it in; N/A for none.", FAILS),
    ("system-field-text", "Fields that tables show are texts.", "Put the value between quotation marks.", STOPS),
    ("system-submitter", "submitter is the folder's name.", "Make them the same.", FAILS),
    ("system-division", "division is the folder's name.", "Make them the same.", FAILS),
    ("system-network", "A system over a network is in the division network.", "Move it, or mend is_network.", FAILS),
]
_RESULTS = [
    ("model-unknown", "The model is one of the round.", "Use its official name; in open, model_mapping.json.", FAILS),
    ("model-category", "The model is offered in the system's category.", "Change system_type, or remove it.", FAILS),
    ("scenario-unknown", "The scenario is one that the model has in this category.", "Remove the folder.", FAILS),
    ("scenario-missing", "Every required scenario has a result.", "Run it; on edge some may be inferred.", FAILS),
]
_MEASUREMENTS = [
    ("measurements-missing", "A result has a folder below measurements/.", "Build it from the run's folder.", FAILS),
    (
        "measurements-file-missing",
        "user.conf and README.md are there, until v4.1 mlperf.conf too.",
        "Add the file.",
        FAILS,
    ),
    ("measurements-file-empty", "user.conf, README.md and mlperf.conf say something.", "Write what was used.", FAILS),
    (
        "measurements-json-missing",
        "<system>_<implementation>_<scenario>.json is there, measurements.json from v6.0 on.",
        "Add it.",
        FAILS,
    ),
    ("measurements-unreadable", "The measurements file is a JSON object.", "Mend the JSON at that line.", STOPS),
    ("measurements-field-missing", "It has the five fields on weights and data types.", "Add the field.", FAILS),
    ("measurements-field-empty", "The five fields are not empty.", "Fill it in.", FAILS),
    (
        "code-missing",
        "code/<model>, or src/<model> from v6.0 on, has what was run.",
        "Add the code, or a file that names its folder.",
        FAILS,
    ),
]
_ACCURACY = [
    ("accuracy-missing", "accuracy/accuracy.txt is there.", "Run accuracy mode: it writes the score.", FAILS),
    ("accuracy-files", "accuracy/ holds the three logs and accuracy.txt only.", "Add or remove the file.", LOGS),
    ("score-missing", "accuracy.txt has every judged score as a plain number.", "Score the log again.", FAILS),
    ("score-unreadable", "A score is one number.", "Score the log again.", STOPS),
    ("score-low", "Every score reaches its target.", "Find what loses accuracy, or submit to open.", FAILS),
    ("score-high", "No score is above its upper limit.", "Find out why: answers may be too long.", FAILS),
    ("hash-missing", "accuracy.txt ends with the hash of the whole log.", "Run `submission truncate`.", FAILS),
    ("hash-form", "The hash is the SHA-256 in 64 hexadecimal digits.", "Shorten the whole log.", SILENT),
    ("hash-wrong", "A log that was not shortened has the hash.", "Put back the log that was scored.", SILENT),
    ("accuracy-log-missing", "mlperf_log_accuracy.json is there.", "Copy it from the run.", FAILS),
    ("accuracy-log-long", "mlperf_log_accuracy.json has at most 10 KiB.", "Run `submission truncate`.", FAILS),
    ("accuracy-log-errors", "The accuracy run's log has no error.", "Mend the cause and run again.", FAILS),
    ("accuracy-detail-missing", "The accuracy run's detail log is there.", "Copy it from the run.", FAILS),
    ("accuracy-detail-unreadable", "Its detail log is whole.", "Copy it again, or run again.", STOPS),
    ("accuracy-mode", "The accuracy run was in accuracy mode.", "Run with --mode accuracy.", SILENT),
    ("accuracy-scenario", "The accuracy run is of the scenario, or of the one it is inferred from.", "Run it.", SILENT),
    ("accuracy-samples", "The accuracy run takes the whole data set.", "Run it with all samples.", SILENT),
    ("accuracy-images", "The ten images that the round names are there.", "Copy them from the run.", FAILS),
    ("accuracy-captions", "images/captions.txt is there.", "Copy it from the run.", LOGS),
]
_PERFORMANCE = [
    ("performance-missing", "performance/run_1 is there.", "Run performance mode.", FAILS),
    ("performance-files", "run_1 holds summary, detail and perhaps accuracy log only.", "Add or remove it.", FAILS),
    ("log-unreadable", "Every :::MLLOG line of the detail log is JSON.", "Copy it again, or run again.", FAILS),
    ("log-key-missing", "The detail log has what is judged.", "Use the round's LoadGen, or run to the end.", FAILS),
    ("result-invalid", "The result is VALID.", "See the reasons in the summary, and run again.", FAILS),
    ("result-zero", "The result is above zero.", "Run again: nothing was measured.", FAILS),
    ("log-errors", "The run logged no error.", "Mend the cause and run again.", FAILS),
    ("sample-count", "The run draws from at least as many samples as the round says.", "Load more samples.", FAILS),
    ("seed", "The run uses the round's seeds.", "Run with the round's `--round`.", FAILS),
    ("early-stopping", "Early stopping is met.", "Run longer, or at a lower rate.", LOGS),
    ("target-latency", "Server's target latency is at most the round's.", "Remove it from user.conf.", FAILS),
    ("min-queries", "The run asks for the queries that the round wants.", "Raise min_query_count.", FAILS),
    ("offline-samples", "An Offline query has as many samples as the round says.", "Raise target_qps.", FAILS),
    ("min-duration", "The run is set to last as long as the round says.", "Remove min_duration from user.conf.", LOGS),
    ("token-latencies-off", "A model judged by tokens reports them.", "Set use_token_latencies.", FAILS),
    ("token-latency", "First token and time per token are within the limits.", "Run at a lower rate.", FAILS),
    ("token-limits", "The run judged tokens by the round's limits.", "Remove ttft_latency and tpot_latency.", SILENT),
    ("scenario-differs", "A result of another scenario may only stand where the rules infer it.", "Run it.", SILENT),
    ("inferred-no-estimate", "A run that MultiStream is inferred from has its estimate.", "Run longer.", FAILS),
    ("performance-mode", "The performance run was in performance mode.", "Run with --mode performance.", SILENT),
    ("percentile", "The run judged latency by the scenario's percentile.", "Remove it from user.conf.", SILENT),
    ("multistream-size", "A MultiStream query has 8 samples.", "Remove samples_per_query from user.conf.", SILENT),
    ("issue-mode", "Samples are drawn at random, not one or each only.", "Remove performance_issue_* keys.", SILENT),
    ("sut-name", "In network, the system's name contains 'Network SUT'.", "Name it so in the run.", FAILS),
]
_COMPLIANCE = [
    ("compliance-missing", "A closed result has its compliance tests.", "Run `comply`.", FAILS),
    ("compliance-test-missing", "Every test of the model is there.", "Run `comply`.", FAILS),
    ("compliance-verdict-missing", "verify_performance.txt is there.", "Run `comply`: it verifies.", FAILS),
    ("compliance-performance", "verify_performance.txt says TEST PASS.", "Run the test again.", FAILS),
    ("compliance-run-missing", "The test's performance/run_1 is there.", "Run `comply`.", FAILS),
    ("compliance-files", "The test's run_1 holds summary, detail, perhaps accuracy log.", "Add or remove it.", FAILS),
    ("compliance-log", "The test's run itself can be judged.", "Run the test again.", STOPS),
    ("compliance-answers-missing", "verify_accuracy.txt is there.", "Run `comply`: it verifies.", FAILS),
    ("compliance-accuracy-missing", "TEST01 has its folder accuracy/.", "Run `comply`.", FAILS),
    ("compliance-accuracy-files", "TEST01's accuracy/ holds what its verdict needs.", "Add or remove.", FAILS),
    ("compliance-delta", "Where answers differ, the scores of both runs agree.", "Find what is random.", FAILS),
    ("compliance-tokens", "TEST06 found first token, end and length right.", "Mend what reports tokens.", FAILS),
    ("compliance-rate", "The test's figure agrees with the result's.", "Find what made it differ.", SILENT),
    ("compliance-settings", "The test's run had the test's settings.", "Run it with the test's audit.config.", SILENT),
]
_POWER = [
    ("power-files", "ranging, run_1 and power hold the files of a power session.", "Copy the whole session.", FAILS),
    ("power-settings", "analyzer_table.* and power_settings.* lie with the measurements.", "Add them.", FAILS),
    ("power-window", "Both logs say when the load began and ended.", "Use a LoadGen that logs it.", FAILS),
    ("power-samples", "The meter has samples while the load ran.", "Set the clocks alike, and measure again.", FAILS),
    ("power-session", "client.json and server.json have the fields of a session.", "Copy the whole session.", FAILS),
    ("power-sources", "Client and server are the released programs.", "Use the round's release.", FAILS),
    ("power-meter", "Meter and PTDaemon are supported, and every command was answered right.", "Measure again.", FAILS),
    ("power-uuid", "Client and server tell of the same session.", "Keep the files of one session together.", FAILS),
    ("power-phases", "Both clocks agree, and the load lies within its phase.", "Set the clocks alike.", FAILS),
    ("power-dip", "The test takes at most 5 % less power than the ranging run.", "Measure both alike.", FAILS),
    ("power-messages", "Client and server noted the same messages.", "Keep the files of one session.", FAILS),
    ("power-checksums", "Every file is the one that the session noted.", "Put the session's own file back.", FAILS),
    ("power-log", "PTDaemon checked its uncertainty and logged no error that counts.", "Measure again.", FAILS),
    ("power-device", "The meter's configuration is a supported one.", "Configure both channels.", FAILS),
    ("power-debug", "The power server did not run in debug mode.", "Measure again without it.", FAILS),
]
_WARNINGS = [
    ("system-field-unknown", "Fields are those of the round.", "Remove it, or mend its name.", LOGS),
    ("system-unused", "Each description has results.", "Remove it, or add the results.", SILENT),
    ("unknown-folder", "A submitter's folder holds the round's folders only.", "Rename or remove it.", SILENT),
    ("power-warning", "A power session has nothing that a reviewer would ask about.", "Be ready to explain it.", LOGS),
]


def _table() -> Mapping[str, Rule]:
    errors = [*_LAYOUT, *_SYSTEM, *_RESULTS, *_MEASUREMENTS, *_ACCURACY, *_PERFORMANCE, *_COMPLIANCE, *_POWER]
    rules = [Rule(*row) for row in errors] + [Rule(*row, is_warning=True) for row in _WARNINGS]
    return MappingProxyType({rule.id: rule for rule in rules})


RULES: Mapping[str, Rule] = _table()


def rule_of(finding: Finding) -> Rule:
    return RULES[finding.rule]


def official_of(finding: Finding) -> Official:
    """What the official v4.0 checker does about it."""
    return finding.official or rule_of(finding).official
