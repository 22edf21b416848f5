"""The miniature's data: paragraphs of facts and questions about them, as SQuAD v1.1 JSON.

A question names a person and asks for one fact, so a model must match the name, match the relation
under another wording, and find where the answer begins and ends. What makes it hard: names share their
pieces, everybody has several facts, a sentence may leave its subject to the one before ("and keeps a
grey goat"), and about a sixth of the paragraphs are longer than one window. And now and then a text
contradicts itself: one fact in 14 repeats an earlier one with another value, so no model can answer all.
Everything follows from a seed.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

DEV_SEED, DEV_PARAGRAPHS = 2024, 120  # the committed score is of these
CALIBRATION_SEED = 2025

CONTRADICTIONS = 1 / 14  # of all facts; each spoils two, half of the time: 7 % of F1 cannot be had


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAME_HEADS = _words("mar bel tor lin kas dav ed fin gar hel iv jon kel lor mir nor os pet ros sam")
NAME_TAILS = _words("a en ik o us ette wyn ard ina elle or is eth ane ulf ey")
PLACE_HEADS = _words("north east ald brook clear dun ember fair glen holm iron kings long mill oak")
PLACE_TAILS = _words("ford ton wick field haven bury stead mouth")
MATERIALS = _words("glass stone paper silver cotton amber copper ivory")
TRADES = _words("painter carver trader cutter printer dyer smith sorter")
COLOURS = _words("red grey black white brown golden spotted pale")
ANIMALS = _words("kite goat hound mare heron ferret parrot tortoise")
FRUITS = _words("plum apple onion barley walnut cherry fennel pumpkin")
DISHES = _words("soup cake stew bread pudding dumplings tart porridge")
INSTRUMENTS = _words("drum harp flute cello horn lute organ fiddle")


@dataclass(frozen=True)
class Relation:
    """One kind of fact. {n} is the person, {v} the value; a question gives {n} only."""

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    values: tuple[tuple[str, ...], str, tuple[str, ...]]
    """Heads, what joins them, tails: a value is one of each."""


_YEARS = (("18", "19"), "", tuple(f"{y:02d}" for y in range(100)))
_PLACES = (tuple(PLACE_HEADS), "", tuple(PLACE_TAILS))

RELATIONS = (
    Relation(
        ("{n} lives in {v} .", "the home of {n} is in {v} ."),
        ("where does {n} live ?", "in which town is the home of {n} ?"),
        _PLACES,
    ),
    Relation(
        ("{n} was born in {v} .", "the birth of {n} was in {v} ."),
        ("when was {n} born ?", "what is the birth year of {n} ?"),
        _YEARS,
    ),
    Relation(
        ("{n} works as a {v} .", "{n} earns a living as a {v} ."),
        ("what is the job of {n} ?", "how does {n} earn a living ?"),
        (tuple(MATERIALS), " ", tuple(TRADES)),
    ),
    Relation(
        ("{n} keeps a {v} .", "the pet of {n} is a {v} ."),
        ("which animal does {n} keep ?", "what is the pet of {n} ?"),
        (tuple(COLOURS), " ", tuple(ANIMALS)),
    ),
    Relation(
        ("{n} loves {v} .", "what {n} eats most is {v} ."),
        ("which dish does {n} love ?", "what does {n} eat most ?"),
        (tuple(FRUITS), " ", tuple(DISHES)),
    ),
    Relation(
        ("{n} plays the {v} .", "in the band {n} has the {v} ."),
        ("which instrument does {n} play ?", "what does {n} have in the band ?"),
        (tuple(INSTRUMENTS), "", ("",)),
    ),
    Relation(
        ("{n} studied in {v} .", "the school of {n} was in {v} ."),
        ("where did {n} study ?", "in which town was the school of {n} ?"),
        _PLACES,
    ),
    Relation(
        ("{n} left the army in {v} .", "the army let {n} go in {v} ."),
        ("when did {n} leave the army ?", "in which year did the army let {n} go ?"),
        _YEARS,
    ),
)


@dataclass(frozen=True)
class Fact:
    person: str
    relation: Relation
    value: str
    start: int
    """Where the value begins in the paragraph."""


def vocabulary() -> list[str]:
    """The WordPiece vocabulary, in id order."""
    texts = [t.format(n="", v="") for r in RELATIONS for t in (*r.statements, *r.questions)]
    words = {w for text in texts for w in text.split()} | {"and"}
    pieces = set()
    for heads, joint, tails in [r.values for r in RELATIONS] + [(tuple(NAME_HEADS), "", tuple(NAME_TAILS))]:
        words |= set(heads)
        pieces |= {t if joint else f"##{t}" for t in tails if t}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    single = [*letters, *(f"##{c}" for c in letters)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return special + sorted(set(single) | words | pieces)


def _value(rng: random.Random, relation: Relation) -> str:
    heads, joint, tails = relation.values
    return f"{rng.choice(heads)}{joint}{rng.choice(tails)}"


def paragraph(rng: random.Random) -> tuple[str, list[Fact]]:
    """A text and its facts, in order."""
    count = rng.randint(12, 18) if rng.random() < 0.17 else rng.randint(3, 8)
    people = sorted({rng.choice(NAME_HEADS) + rng.choice(NAME_TAILS) for _ in range(max(2, count // 3))})
    left = {person: list(RELATIONS) for person in people}
    facts: list[Fact] = []
    text = person = ""
    for _ in range(min(count, len(people) * len(RELATIONS))):
        before = person
        if facts and rng.random() < CONTRADICTIONS:
            earlier = rng.choice(facts)
            person, relation = earlier.person, earlier.relation
        else:
            if not left.get(person) or rng.random() >= 0.3:
                person = rng.choice([p for p in people if left[p]])
            relation = left[person].pop(rng.randrange(len(left[person])))
        statement, value = rng.choice(relation.statements), _value(rng, relation)
        elliptic = person == before and statement.startswith("{n} ") and rng.random() < 0.5
        statement = statement.replace("{n}", "and" if elliptic else person)
        facts.append(Fact(person, relation, value, len(text) + statement.index("{v}")))
        text += statement.replace("{v}", value) + " "
    return text.strip(), facts


def squad(seed: int, paragraphs: int) -> dict[str, object]:
    """A SQuAD v1.1 document: each question has three answers, as three readers would give them."""
    rng = random.Random(seed)
    articles = []
    for p in range(paragraphs):
        context, facts = paragraph(rng)
        qas = []
        for q, fact in enumerate(rng.sample(facts, min(4, len(facts)))):
            question = rng.choice(fact.relation.questions).format(n=fact.person)
            qas.append({"id": f"mini-{seed}-{p}-{q}", "question": question, "answers": _answers(fact)})
        articles.append({"title": f"facts {p}", "paragraphs": [{"context": context, "qas": qas}]})
    return {"version": "1.1", "data": articles}


def _answers(fact: Fact) -> list[dict[str, object]]:
    whole = {"text": fact.value, "answer_start": fact.start}
    last = fact.value.split(" ")[-1]
    short = {"text": last, "answer_start": fact.start + len(fact.value) - len(last)}
    return [whole, whole, short]


def write(folder: Path, seed: int = DEV_SEED, paragraphs: int = DEV_PARAGRAPHS) -> None:
    """`dev-v1.1.json` and `vocab.txt`, byte for byte the same each time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    (folder / "dev-v1.1.json").write_text(json.dumps(squad(seed, paragraphs), indent=1) + "\n")
