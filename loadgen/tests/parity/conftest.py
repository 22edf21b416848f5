"""Options of the parity session: which cases to draw, and how many."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="seed that the cases are drawn from")
    parser.addoption("--cases", type=int, default=500, help="cases to draw for each official wheel")
    parser.addoption("--checker", help="tools/submission of the official suite, for test_checker.py")
