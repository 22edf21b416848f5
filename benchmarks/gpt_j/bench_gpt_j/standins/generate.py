"""The miniature's news and summaries.

An article reports 2 to 9 events. What matters is its first sentence, which nothing marks, and one or two that are
marked. A summary tells these in order. Two habits of its writers make decoding matter:

- The plainest wording begins less often than all others together, which begin alike and then part. So who chooses the
  likeliest word leaves the likeliest summary.
- Most texts that the model learns from end after the first event, as headlines do. The summaries that it is scored by
  never do, so an answer needs its least length.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

SEED = 6
"""Of the evaluation set."""

PEOPLE = "baker nurse pilot judge farmer singer doctor sailor miner monk tailor guard".split()
VERBS = "found sold lost saved stole hid".split()
THINGS = "ring horse boat painting lamp clock drum dog coat bell book car".split()
PLACES = "Rome Oslo Paris Cairo Lima Bonn Kiev Delhi Bern Quito".split()
DAYS = "Monday Tuesday Friday Sunday".split()
MARK = "Officials confirmed:"

PLAIN = 0.4
"""Share of events that are told in the plainest wording."""
OTHERS = (
    "It came out late that",
    "It looks now as if",
    "It seems quite sure how",
    "It made big waves when",
    "It shocked many here because",
    "It will be told again:",
)
HEADLINE = 0.7
"""Share of the texts to learn from that end after the first event."""
_THIRD = 0.3


@dataclass(frozen=True)
class Event:
    who: str
    verb: str
    what: str
    place: str
    day: str

    @property
    def reported(self) -> str:
        """As the article has it."""
        return f"A {self.who} {self.verb} a {self.what} in {self.place} on {self.day}."

    def told(self, rng: random.Random) -> str:
        """As a summary has it."""
        where = f"in {self.place}" if rng.random() < 0.65 else f"on {self.day}"
        core = f"{self.who} {self.verb} a {self.what} {where}."
        return f"The {core}" if rng.random() < PLAIN else f"{rng.choice(OTHERS)} the {core}"


@dataclass(frozen=True)
class Example:
    """One row of `cnn_eval.json`."""

    article: str
    summary: str


def example(rng: random.Random, headlines: float) -> Example:
    """A fresh one. headlines: share of summaries that end after the first event."""
    count = rng.randint(2, 9)
    people, things = rng.sample(PEOPLE, count), rng.sample(THINGS, count)
    events = [
        Event(who, rng.choice(VERBS), what, rng.choice(PLACES), rng.choice(DAYS))
        for who, what in zip(people, things, strict=True)
    ]
    third = count > 2 and rng.random() < _THIRD
    marked = sorted(rng.sample(range(1, count), 2 if third else 1))
    article = " ".join(f"{MARK} {e.reported}" if at in marked else e.reported for at, e in enumerate(events))
    wanted = [0] if rng.random() < headlines else [0, *marked]
    return Example(article, " ".join(events[at].told(rng) for at in wanted))


def evaluation(count: int, seed: int = SEED) -> list[Example]:
    """No headlines among them."""
    rng = random.Random(seed)
    return [example(rng, 0.0) for _ in range(count)]


def endless(seed: int) -> Iterator[Example]:
    """For training; seeds other than the evaluation's."""
    rng = random.Random(f"train {seed}")
    while True:
        yield example(rng, HEADLINE)
