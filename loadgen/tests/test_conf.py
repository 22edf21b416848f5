"""Config files: the strict reading, and what of the official reading needs no wheel to check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.conf import (
    ConfError,
    ConfWarning,
    Effective,
    Text,
    explain,
    format_explanation,
    from_config,
    ignored,
    read_official,
    settings_from,
)
from loadgen.conf.keys import KEYS
from loadgen.settings import Mode, Revision, Scenario, TestSettings

BASE = TestSettings()
V6_0 = TestSettings(revision=Revision.V6_0)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "user.conf"


def strict(path: Path, text: str, scenario: Scenario = Scenario.Server, base: TestSettings = BASE) -> TestSettings:
    path.write_bytes(text.encode())
    return settings_from([path], "bert", scenario, base)


def official(path: Path, text: str, base: TestSettings = BASE, scenario: str = "Server") -> tuple[int, TestSettings]:
    path.write_bytes(text.encode())
    return from_config(path, "bert", scenario, base)


# The official reading.


def test_official_values_and_warts(conf: Path) -> None:
    text = """
# a comment
*.SingleStream.target_latency = 0.5
*.Server.target_latency = 15.7
*.Server.target_qps = 1e3
*.Server.max_async_queries = 2147483648
*.MultiStream.samples_per_query = -1
*.*.min_query_count = 1000 2000
*.*.max_query_count = 010
*.*.accuracy_log_probability = 50
*.*.mode = 1.9
#*.*.min_duration = 5
key=value
"""
    assert official(conf, text) == (
        0,
        replace(
            BASE,
            single_stream_expected_latency_ns=500_000,
            server_target_latency_ns=15_000_000,
            server_target_qps=1000.0,
            server_max_async_queries=2**64 - 2**31,
            multi_stream_samples_per_query=2**64 - 1,
            min_query_count=2000,
            max_query_count=8,
            accuracy_log_probability=0.5,
            mode=Mode.AccuracyOnly,
        ),
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("*.*.min_query_count = 5 # five", "value needs to be integer or double, line=2"),
        ("#comment without a space", "expected 'key=value', line=2"),
        ("*.*.min_query_count =5", "expected 'key=value', line=2"),
        ("*.*.min_query_count = ten", "value needs to be integer or double, line=2"),
    ],
)
def test_official_errors_apply_nothing(conf: Path, line: str, error: str) -> None:
    conf.write_text(f"*.*.max_query_count = 7\n{line}\n")
    outcome = read_official(conf, "bert", "Server", BASE)
    assert (outcome.code, outcome.settings, outcome.errors) == (-22, BASE, (error,))


def test_official_missing_file_and_folder(tmp_path: Path) -> None:
    missing = tmp_path / "missing.conf"
    outcome = read_official(missing, "bert", "Server", BASE)
    assert (outcome.code, outcome.errors) == (-2, (f"can't open file {missing}",))
    assert from_config("", "bert", "Server", BASE) == (-2, BASE)
    assert from_config(tmp_path, "bert", "Server", BASE) == (0, BASE)


def test_official_unknown_mode_is_logged(conf: Path) -> None:
    conf.write_text("*.*.mode = 4\n*.*.max_query_count = 7\n")
    outcome = read_official(conf, "bert", "Server", BASE)
    assert outcome.code == 0
    assert outcome.settings == replace(BASE, max_query_count=7)
    assert outcome.errors == ("Invalid value passed to Mode key in config.",)


PRECEDENCE = ("bert.Server", "*.Server", "bert.*", "*.*")


@pytest.mark.parametrize("first", range(4))
def test_precedence(conf: Path, first: int) -> None:
    lines = [f"{place}.min_query_count = {rank}" for rank, place in enumerate(PRECEDENCE)][first:]
    for text in ("\n".join(lines), "\n".join(reversed(lines))):
        assert official(conf, text)[1].min_query_count == first
        assert strict(conf, text).min_query_count == first


def test_later_file_wins_whatever_its_wildcards(tmp_path: Path) -> None:
    first, second = tmp_path / "mlperf.conf", tmp_path / "user.conf"
    first.write_text("bert.Server.min_query_count = 1\n")
    second.write_text("*.*.min_query_count = 2\n")
    assert settings_from([first, second], "bert", Scenario.Server, BASE).min_query_count == 2


TOKENS = "*.Server.ttft_latency = 11\n*.*.token_latency_scaling_factor = 69\n"


def test_token_settings_need_their_switch(conf: Path) -> None:
    """4.0: in this file. 6.0: on."""
    switches = "*.*.use_token_latencies = 1\n*.*.infer_token_latencies = 1\n"
    for base in (BASE, V6_0):
        got = official(conf, switches + TOKENS, base)[1]
        assert (got.server_ttft_latency, got.token_latency_scaling_factor) == (11_000_000, 69)
        assert official(conf, TOKENS, base) == (0, base)
        switched = replace(base, use_token_latencies=True, infer_token_latencies=True)
        got = official(conf, TOKENS, switched)[1]
        assert (got.server_ttft_latency == 11_000_000) is (base is V6_0)
        assert (got.token_latency_scaling_factor == 69) is (base is V6_0)


SEEDS = "*.*.qsl_rng_seed = 5\n*.*.test05 = 1\n*.*.accuracy_log_probability = 1\n"


def test_revision_6_takes_seeds_from_the_rules_alone(conf: Path) -> None:
    assert official(conf, SEEDS, V6_0) == (0, V6_0)
    assert official(conf, SEEDS)[1] == replace(BASE, qsl_rng_seed=5, test05=True, accuracy_log_probability=0.01)
    rules = settings_from([Text("rules", SEEDS)], "bert", Scenario.SingleStream, V6_0)
    assert rules == replace(V6_0, qsl_rng_seed=5, test05=True, accuracy_log_probability=0.01)
    with pytest.warns(ConfWarning, match="revision 6.0 does not read it here"):
        assert strict(conf, SEEDS, base=V6_0).qsl_rng_seed == 0


def test_accuracy_sample_count_override_came_with_6_0(conf: Path) -> None:
    text = "*.*.accuracy_sample_count_override = 9\n"
    assert official(conf, text, V6_0)[1].accuracy_sample_count_override == 9
    assert official(conf, text) == (0, BASE)
    with pytest.warns(ConfWarning, match="revision 6.0 reads it"):
        strict(conf, text)


# The strict reading.


def test_strict_sets_the_scenario(conf: Path) -> None:
    got = strict(conf, "bert.Offline.target_qps = 12.5\r\n\n# words\n#*.*.mode = 1\n", Scenario.Offline)
    assert got == replace(BASE, scenario=Scenario.Offline, offline_expected_qps=12.5)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("*.*.min_querry_count = 3", "unknown key 'min_querry_count', did you mean 'min_query_count'?"),
        ("*.Server.server_target_qps = 3", "its name in a file is 'target_qps'"),
        ("*.server.target_qps = 3", "no scenario 'server', did you mean 'Server'?"),
        ("*.Interactive.target_qps = 3", "no scenario 'Interactive'; there are SingleStream, MultiStream"),
        ("*.*.Target_QPS = 3", "did you mean 'target_qps'?"),
        ("min_query_count = 3", "a key is model.scenario.key"),
        ("*..min_query_count = 3", "a key is model.scenario.key"),
        ("*.*.min_query_count=3", "with spaces around '='"),
        ("*.*.min_query_count =3", "with spaces around '='"),
        ("*.*.min_query_count", "with spaces around '='"),
        ("*.*.min_query_count =", "needs one value"),
        ("*.*.min_query_count = 1 2", "needs one value, has '1 2'"),
        ("*.*.min_query_count = 1 # one", "a comment goes on a line of its own"),
        ("#a comment", "write a space after '#'"),
        ("*.*.min_query_count = ten", "'ten' is not a number"),
        ("*.*.min_query_count = 1_0", "'1_0' is not a number"),
        ("*.*.min_query_count = 1e3", "whole number in range; the official LoadGen reads 1"),
        ("*.*.min_query_count = 010", "the official LoadGen reads 8"),
        ("*.*.min_query_count = 1.5", "the official LoadGen reads 1"),
        ("*.*.min_query_count = -1", "must not be negative"),
        ("*.*.min_query_count = 18446744073709551616", "whole number in range"),
        ("*.Server.target_latency = 18446744073710", "whole number in range"),
        ("*.Server.target_latency = 15.7", "the official LoadGen reads 15"),
        ("*.*.target_latency = 0.5", "the official LoadGen reads 0"),
        ("*.Server.max_async_queries = 2147483648", "whole number in range"),
        ("*.Server.target_qps = inf", "not a finite decimal number"),
        ("*.Server.target_qps = nan", "not a finite decimal number"),
        ("*.Server.target_qps = 1e400", "not a finite decimal number"),
        ("*.Server.target_qps = 1e99999999999999999999", "not a finite decimal number"),
        ("*.Server.target_qps = 0x1p4", "not a finite decimal number"),
        ("*.Server.target_qps = -1", "must not be negative"),
        ("*.Server.target_latency_percentile = 100.5", "must be a percentage"),
        ("*.*.use_token_latencies = 2", "'2' must be 0 or 1"),
        ("*.Server.coalesce_queries = 1.0", "'1.0' must be 0 or 1"),
        ("*.*.mode = 4", "must be one of 0 SubmissionRun"),
        ("*.*.min_query_count\xa0=\xa05", "with spaces around '='"),
    ],
)
def test_strict_errors_say_where_and_what(conf: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfError) as caught:
        strict(conf, f"# one\n\n{line}\n")
    assert str(caught.value).startswith(f"{conf}:3: ")
    assert complaint in str(caught.value)


def test_strict_refuses_files_that_are_no_text(tmp_path: Path, conf: Path) -> None:
    with pytest.raises(ConfError, match=r"missing\.conf: cannot be read: No such file"):
        settings_from([tmp_path / "missing.conf"], "bert", Scenario.Server, BASE)
    with pytest.raises(ConfError, match="cannot be read: Is a directory"):
        settings_from([tmp_path], "bert", Scenario.Server, BASE)
    conf.write_bytes(b"# \xff\n")
    with pytest.raises(ConfError, match="not UTF-8 text at byte 2"):
        settings_from([conf], "bert", Scenario.Server, BASE)
    with pytest.raises(ConfError, match="byte-order mark"):
        strict(conf, "\ufeff*.*.min_query_count = 5\n")


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("*.Server.target_duration = 0", ":1: *.Server.target_duration has no effect: no LoadGen has"),
        ("*.Offline.target_latency_percentile = 90", "is read for SingleStream, MultiStream, Server only"),
        ("*.Offline.target_latency = 90", "is read for SingleStream, MultiStream, Server only"),
        ("*.*.mode = 1\n*.*.mode = 2", ":1: *.*.mode has no effect: {conf}:2 sets it again"),
        ("*.Server.ttft_latency = 1", "it needs use_token_latencies = 1 in the same file"),
        ("*.*.infer_token_latencies = 0\n*.*.token_latency_scaling_factor = 6", ":2: *.*.token_latency"),
    ],
)
def test_ignored_lines_are_listed_and_warned_about(conf: Path, text: str, note: str) -> None:
    with pytest.warns(ConfWarning) as caught:
        strict(conf, text)
    notes = ignored([conf], "bert", Scenario.Server)
    assert [str(warning.message) for warning in caught] == notes
    assert len(notes) == 1
    assert notes[0].startswith(f"{conf}:")
    assert note.format(conf=conf) in notes[0]


def test_lines_for_others_are_no_news(conf: Path) -> None:
    conf.write_text("rnnt.Server.target_latency = 1000\n*.Offline.target_qps = 9\nllama.Server.ttft_latency = 3\n")
    assert ignored([conf], "bert", Scenario.Server) == []


# explain


def test_explain_names_the_origin_of_every_setting(tmp_path: Path) -> None:
    first, second = tmp_path / "mlperf.conf", tmp_path / "user.conf"
    first.write_text("*.Server.target_latency = 10\nbert.Server.target_latency = 130\n*.*.min_duration = 600000\n")
    second.write_text("\n*.Server.target_qps = 25.5\n*.*.min_duration = 1000\n")
    base = replace(BASE, max_query_count=3)
    rows = {row.field: row for row in explain([first, second], "bert", Scenario.Server, base)}
    assert rows["server_target_latency_ns"] == Effective(
        "bert.Server.target_latency", "server_target_latency_ns", 130_000_000, f"{first}:2"
    )
    assert rows["min_duration_ms"] == Effective("*.*.min_duration", "min_duration_ms", 1000, f"{second}:3")
    assert rows["server_target_qps"].origin == f"{second}:2"
    assert rows["max_query_count"] == Effective("bert.Server.max_query_count", "max_query_count", 3, "base")
    assert rows["min_query_count"].origin == "default"
    assert "offline_expected_qps" not in rows
    effective = settings_from([first, second], "bert", Scenario.Server, base)
    assert all(getattr(effective, row.field) == row.value for row in rows.values())


def test_explanation_as_text(conf: Path) -> None:
    conf.write_text("*.*.mode = 1\n*.Server.target_duration = 0\n")
    rows = explain([conf], "bert", Scenario.Server)
    text = format_explanation(rows, ignored([conf], "bert", Scenario.Server))
    lines = text.splitlines()
    assert lines[0].split() == ["mode", "AccuracyOnly", f"{conf}:1", "*.*.mode"]
    assert lines[1].split() == ["min_duration_ms", "10000", "default", "bert.Server.min_duration"]
    assert len(lines) == len(rows) + 1
    assert lines[-1].startswith("ignored: ")


# Properties of the grammar.

numbers = st.one_of(
    st.integers(-5, 2**65).map(str),
    st.floats(0, 1e6).map(repr),
    st.sampled_from(["010", "0x10", "1e3", "inf", "nan", "1 2", "ten", "", "1 # one", "0", "1"]),
)
keys = st.builds(
    "{}.{}.{}".format,
    st.sampled_from(["*", "bert", "a.b"]),
    st.sampled_from(["*", *Scenario.__members__, "server"]),
    st.sampled_from(sorted({name for _, name in KEYS} | {"target_duration", "min_querry_count"})),
)
spaces = st.text(" \t\v\f", min_size=1, max_size=2)
lines = st.one_of(
    st.builds("{}{}={}{}".format, keys, spaces, spaces, numbers),
    st.sampled_from(["# words", "#", "#key = 1", "#word word", "", "key=1"]),
    st.text(max_size=12),
)


@given(st.lists(lines, max_size=8).map("\n".join), st.sampled_from(Scenario), st.sampled_from(Revision))
@pytest.mark.filterwarnings("ignore::loadgen.conf.ConfWarning")
def test_what_strict_accepts_means_the_same_officially(
    conf: Path, text: str, scenario: Scenario, revision: Revision
) -> None:
    base = TestSettings(scenario=scenario, revision=revision)
    outcome = official(conf, text, base, scenario.name)
    try:
        got = strict(conf, text, scenario, base)
    except ConfError:
        return
    assert outcome == (0, got)


@given(st.binary(max_size=200))
def test_official_reading_takes_any_bytes(conf: Path, data: bytes) -> None:
    conf.write_bytes(data)
    code, got = from_config(conf, "bert", "Server", BASE)
    assert code == 0 or (code == -22 and got == BASE)


good_values = {
    "uint64": st.integers(0, 2**63 // 10**6),
    "int32": st.integers(0, 2**31 - 1),
    "double": st.floats(0, 1e9),
    "percent": st.floats(0, 100),
    "is one": st.integers(0, 1),
    "is not zero": st.integers(0, 1),
    "mode": st.integers(0, 3),
}


@given(st.sampled_from(sorted(KEYS)).flatmap(lambda k: st.tuples(st.just(k), good_values[KEYS[k].kind])))
@pytest.mark.filterwarnings("ignore::loadgen.conf.ConfWarning")
def test_every_good_value_is_accepted_and_found_in_explain(conf: Path, drawn: tuple[tuple[str, str], float]) -> None:
    (lookup, name), value = drawn
    scenario = Scenario.Server if lookup == "*" else Scenario[lookup]
    switches = "*.*.use_token_latencies = 1\n*.*.infer_token_latencies = 1\n"
    conf.write_text(("" if name in switches else switches) + f"*.{scenario.name}.{name} = {value}\n")
    key = KEYS[lookup, name]
    base = V6_0 if name == "accuracy_sample_count_override" else BASE
    row = next(row for row in explain([conf], "bert", scenario, base) if row.field == key.field)
    assert row.origin.startswith(f"{conf}:")
    number = row.value.value if isinstance(row.value, Mode) else row.value
    assert number == pytest.approx(value * key.scale, rel=1e-15)


def test_lines_end_as_in_c(conf: Path) -> None:
    """A carriage return is a space, not the end of a line; so is a form feed."""
    text = "*.*.min_query_count = 5\r*.*.max_query_count = 6\n"
    assert official(conf, text)[0] == -22
    with pytest.raises(ConfError, match="needs one value"):
        strict(conf, text)


def test_model_names_may_hold_dots() -> None:
    text = Text("rules", "llama3.1-8b.Server.target_qps = 4\n")
    assert settings_from([text], "llama3.1-8b", Scenario.Server, BASE).server_target_qps == 4.0
