"""The miniature's instructions and answers: four origins, as OpenOrca has, and answers of 2 to some 90 tokens.

An answer is a function of the prompt but for its wording, which is drawn: so no model can score 100, and a good one is
sure of each word all the same, because one wording is always the likeliest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

SEED = 70
"""Of the evaluation set."""

NAMES = "Ada Bo Cleo Dan Eva Finn Gus Hana Ivo Jana Kai Lena Milo Nora Otto Pia Quin Rosa Sam Tara".split()
THINGS = "apples pears coins books cards stones shells nuts pens cups".split()
ITEMS = (
    "red blue green white black gold pink grey cat dog fox hen cow pig bat owl ship cart lamp desk rope bell drum flag "
    "salt rice corn milk soup cake"
).split()
KINDS = "bird fish tree stone song dance tool game boat hill".split()
LOOKS = "small big old young loud quiet quick slow bright dark".split()
PEOPLE = "farmer king queen sailor baker miller judge nurse guard monk".split()
VERBS = "calls greets follows helps thanks pulls".split()
PASSIVES = dict(zip(VERBS, "called greeted followed helped thanked pulled".split(), strict=True))
HEADS, TAILS = "bli dra fro gle klu mor pli sna tri zor".split(), "b ck lm nt p rt sk x".split()

SYSTEMS: Mapping[str, str] = MappingProxyType(
    {
        "cot": "Think step by step.",
        "flan": "You are a helpful assistant.",
        "niv": "Use the facts.",
        "t0": "",  # as some of OpenOrca's
    }
)
_CLOSING = 0.2
"""Share of answers that end with a sentence which nothing in the prompt asks for."""


@dataclass(frozen=True)
class Example:
    """One row of OpenOrca."""

    origin: str
    system: str
    question: str
    output: str

    @property
    def prompt(self) -> str:
        """Llama's form of a conversation, in which the reference writes the first token as text."""
        system = f"<<SYS>>\n{self.system}\n<</SYS>>\n\n" if self.system else ""
        return f"<s>[INST] {system}{self.question} [/INST]"


def _worded(rng: random.Random, *wordings: str) -> str:
    """The first is the likeliest by far."""
    return rng.choices(wordings, [6, 2, 1][: len(wordings)])[0]


def _sums(rng: random.Random) -> tuple[str, str]:
    """Words and numbers: adding and taking away, one to four times."""
    name, thing, have = rng.choice(NAMES), rng.choice(THINGS), rng.randint(3, 20)
    question, steps = [f"{name} has {have} {thing}."], [f"{name} starts with {have} {thing}."]
    for _ in range(rng.randint(1, 4)):
        change = rng.randint(1, 9)
        if have > change and rng.random() < 0.5:
            question.append(_worded(rng, f"{name} gives away {change}.", f"{name} loses {change}."))
            steps.append(f"{have} minus {change} is {have - change}.")
            have -= change
        else:
            question.append(_worded(rng, f"{name} buys {change}.", f"{name} finds {change}."))
            steps.append(f"{have} plus {change} is {have + change}.")
            have += change
    question.append(f"How many {thing} now?")
    end = _worded(rng, f"So {name} has {have} {thing}.", f"The answer is {have}.", f"That makes {have} {thing} in all.")
    return " ".join(question), " ".join([*steps, end])


def _lists(rng: random.Random) -> tuple[str, str]:
    """Lists that are repeated, turned round, or told."""
    items = rng.sample(ITEMS, rng.randint(2, 9))
    task = rng.choice(("Repeat", "Reverse", "Tell"))
    ordered = items[::-1] if task == "Reverse" else items
    if task == "Tell":
        first, *others = ordered
        then = _worded(rng, "Then comes", "Next is", "It goes on with")
        answer = " ".join([f"First comes {first}.", *(f"{then} {item}." for item in others)])
    else:
        answer = ", ".join(ordered) + "."
    return f"{task} the list: {', '.join(items)}.", answer


def _facts(rng: random.Random) -> tuple[str, str]:
    """What invented words mean, looked up among others."""
    words = sorted({rng.choice(HEADS) + rng.choice(TAILS) for _ in range(rng.randint(2, 5))})
    rng.shuffle(words)
    known = {word: (rng.choice(LOOKS), rng.choice(KINDS)) for word in words}
    told = " ".join(f"A {word} is a {look} {kind}." for word, (look, kind) in known.items())
    if rng.random() < 0.3:
        answer = " ".join(f"{look} {kind} means {word}." for word, (look, kind) in known.items())
        return f"{told} Explain all words.", answer
    word = rng.choice(words)
    look, kind = known[word]
    a = f"a {look} {kind}"
    return f"{told} What is a {word}?", _worded(rng, f"A {word} is {a}.", f"It is {a}.", f"By the facts it is {a}.")


def _rewriting(rng: random.Random) -> tuple[str, str]:
    """Sentences turned into the passive, one to three, or judged in a word."""
    who, whom = (f"{rng.choice(LOOKS)} {person}" for person in rng.sample(PEOPLE, 2))
    verb = rng.choice(VERBS)
    if rng.random() < 0.4:
        items = rng.sample(ITEMS, rng.randint(2, 6))
        wanted = rng.choice(items) if rng.random() < 0.5 else rng.choice(ITEMS)
        return f"Is {wanted} in the list {', '.join(items)}?", "yes." if wanted in items else "no."
    told, turned = [f"The {who} {verb} the {whom}."], [f"The {whom} is {PASSIVES[verb]} by the {who}."]
    for _ in range(rng.randint(0, 2)):
        other, verb = rng.choice(PEOPLE), rng.choice(VERBS)
        told.append(f"The {other} {verb} the {whom}.")
        turned.append(f"The {whom} is {PASSIVES[verb]} by the {other}.")
    ask = _worded(rng, "Use the passive:", "Rewrite in the passive:")
    return f"{ask} {' '.join(told)}", " ".join(turned)


ORIGINS: Mapping[str, Callable[[random.Random], tuple[str, str]]] = MappingProxyType(
    {"cot": _sums, "flan": _lists, "niv": _facts, "t0": _rewriting}
)
"""In the order in which the official file holds them."""


def example(rng: random.Random, origin: str) -> Example:
    """A fresh one."""
    question, output = ORIGINS[origin](rng)
    if origin != "t0" and rng.random() < _CLOSING:
        output += " " + _worded(rng, "I hope this helps you.", "Tell me if you need more.")
    return Example(origin, SYSTEMS[origin], question, output)


def evaluation(count: int, seed: int = SEED) -> list[Example]:
    """As many of each origin, one origin after another; no question twice."""
    rng = random.Random(seed)
    made: dict[str, Example] = {}
    for number, origin in enumerate(ORIGINS, 1):
        while len(made) < count * number // len(ORIGINS):
            new = example(rng, origin)
            made.setdefault(new.question, new)
    return list(made.values())


def endless(seed: int) -> Iterator[Example]:
    """For training; seeds other than the evaluation's."""
    rng = random.Random(f"train {seed}")
    while True:
        yield example(rng, rng.choice(list(ORIGINS)))
