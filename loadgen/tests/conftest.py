"""Hypothesis without deadlines, because machines may be busy, and one folder for all examples of a test. And Ctrl-C as
at a terminal: what a script starts in the background ignores it, and so would the processes that tests interrupt."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("unhurried")
signal.signal(signal.SIGINT, signal.default_int_handler)
