"""Who computes: copies of a model in threads, processes or Ray replicas, or a whole system in its own process.

`opened` gives a run its loaded backends, as `Workers` says. `ProcessSystem` runs any system under test in a child.
"""

from loadgen.harness.workers.pool import Opened, Workers, opened
from loadgen.harness.workers.system import ProcessSystem

__all__ = ["Opened", "ProcessSystem", "Workers", "opened"]
