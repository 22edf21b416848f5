"""Hypothesis without deadlines: these machines may be busy. And Ctrl-C as at a terminal: what a script starts in the
background ignores it, and so would the processes that tests start in order to interrupt them."""

import signal

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
signal.signal(signal.SIGINT, signal.default_int_handler)
