"""A small English-like grammar and the sentence pairs drawn from it: MRPC's columns without a download.

A *scene* is two people, each with a trait and something they do, and a time. It can be told in many *tellings*: each
word in one of its synonyms, one of several conjunctions. Two tellings of one scene are a paraphrase. A *near miss* tells,
with the very same words, the scene in which the two people, their traits or their deeds have changed places.

Rows come as twins: one first sentence, once with the paraphrase and once with its near miss. The twins hold exactly the
same words, so whatever counts words, lengths or overlaps sees the same thing under both labels and is right in exactly
half of the rows; only who did what tells. The slots of a sentence keep their places, which is what lets a tiny model
learn the task in seconds: a rule that asks whether any shared word has moved would do, and counting words would not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple, TypeVar

SEED = 20240229
SCENES = {"train": 1200, "validation": 400, "test": 400}
LABEL_NAMES = ("not_equivalent", "equivalent")
HIDDEN_LABEL = -1  # what GLUE writes into a test split

# A concept is a tuple of words that may stand for each other; a telling picks one of them.
Concept = tuple[str, ...]

PEOPLE: tuple[Concept, ...] = (
    ("doctor", "physician"), ("teacher",), ("farmer",), ("lawyer", "attorney"), ("nurse",), ("pilot",), ("baker",),
    ("writer", "author"), ("soldier",), ("sailor",), ("student", "pupil"), ("singer",), ("painter",), ("driver",),
    ("child", "kid"), ("king",), ("queen",), ("thief", "robber"), ("judge",), ("waiter",),
)  # fmt: skip
TRAITS: tuple[Concept, ...] = (
    ("clever", "smart"), ("angry", "furious"), ("young",), ("old",), ("tall",), ("quiet", "silent"),
    ("rich", "wealthy"), ("poor",), ("sad", "unhappy"), ("happy", "glad"),
)  # fmt: skip
DEEDS: tuple[Concept, ...] = (
    ("sang",), ("danced",), ("slept", "dozed"), ("laughed", "giggled"), ("worked", "labored"), ("cried", "wept"),
    ("waited",), ("left", "departed"), ("shouted", "yelled"), ("smiled", "grinned"), ("ran",), ("swam",), ("read",),
    ("cooked",), ("prayed",), ("spoke", "talked"),
)  # fmt: skip
TIMES: tuple[Concept, ...] = (
    ("yesterday",),
    ("today",),
    ("tonight",),
    ("again",),
    ("outside", "outdoors"),
    ("upstairs",),
)
CONJUNCTIONS: Concept = ("while", "as", "and", "when")

_Item = TypeVar("_Item")


class Row(NamedTuple):
    """One row, in the order of MRPC's columns; `label` indexes `LABEL_NAMES` or is -1."""

    sentence1: str
    sentence2: str
    label: int
    idx: int


@dataclass(frozen=True)
class Scene:
    """What happened, before any word is chosen: `trait_a person_a deed_a` while `trait_b person_b deed_b`."""

    trait_a: Concept
    person_a: Concept
    deed_a: Concept
    trait_b: Concept
    person_b: Concept
    deed_b: Concept
    time: Concept

    def near_misses(self) -> list[Scene]:
        """The three scenes of the same concepts in which people, traits or deeds have changed places."""
        return [
            replace(self, person_a=self.person_b, person_b=self.person_a),
            replace(self, trait_a=self.trait_b, trait_b=self.trait_a),
            replace(self, deed_a=self.deed_b, deed_b=self.deed_a),
        ]

    def key(self) -> frozenset[Concept]:
        """The same for a scene and its near misses, and for no scene of other concepts: what keeps the splits apart."""
        return frozenset(astuple(self))


def pick(random_: random.Random, items: Sequence[_Item]) -> _Item:
    """One of the items; built on `random()` alone, the only draw that Python promises never to change."""
    return items[int(random_.random() * len(items))]


def _pick_two(random_: random.Random, items: Sequence[_Item]) -> tuple[_Item, _Item]:
    """Two different items, every ordered pair as likely as any other."""
    first = int(random_.random() * len(items))
    second = (first + 1 + int(random_.random() * (len(items) - 1))) % len(items)
    return items[first], items[second]


def draw_scene(random_: random.Random) -> Scene:
    """A scene; a scene and each of its near misses are equally likely, so neither class has words of its own."""
    traits, people, deeds = (_pick_two(random_, kind) for kind in (TRAITS, PEOPLE, DEEDS))
    return Scene(traits[0], people[0], deeds[0], traits[1], people[1], deeds[1], pick(random_, TIMES))


def draw_words(random_: random.Random, scene: Scene) -> dict[Concept, str]:
    """A word for each concept of the scene, and one for the conjunction."""
    return {concept: pick(random_, concept) for concept in (*astuple(scene), CONJUNCTIONS)}


def tell(scene: Scene, words: dict[Concept, str]) -> str:
    """The scene as an English sentence, capitalised and with its full stop."""
    w = [words[concept] for concept in astuple(scene)]
    return f"The {w[0]} {w[1]} {w[2]} {words[CONJUNCTIONS]} the {w[3]} {w[4]} {w[5]} {w[6]}."


def _two_tellings(random_: random.Random, scene: Scene) -> tuple[str, dict[Concept, str]]:
    """A sentence, and words for another one, so that no sentence is its own paraphrase."""
    first = tell(scene, draw_words(random_, scene))
    while tell(scene, words := draw_words(random_, scene)) == first:
        pass
    return first, words


def paraphrase_stream(seed: int, *, without: frozenset[frozenset[Concept]]) -> Iterator[tuple[str, str]]:
    """Paraphrases without end and without labels, for pretraining.

    Args:
        seed: of the generator; any but `SEED`.
        without: scenes, by `Scene.key`, that must not occur.
    """
    random_ = random.Random(seed)
    while True:
        scene = draw_scene(random_)
        if scene.key() not in without:
            first, words = _two_tellings(random_, scene)
            yield first, tell(scene, words)


def split_scenes() -> dict[str, list[Scene]]:
    """The scenes of each split; no two of them, in one split or in two, have the same key."""
    random_ = random.Random(SEED)
    taken: set[frozenset[Concept]] = set()
    splits: dict[str, list[Scene]] = {}
    for name, count in SCENES.items():
        scenes = splits[name] = []
        while len(scenes) < count:
            scene = draw_scene(random_)
            if scene.key() not in taken:
                taken.add(scene.key())
                scenes.append(scene)
    return splits


def _rows(name: str, scenes: list[Scene]) -> list[Row]:
    """The rows of one split: a paraphrase and its near miss for each scene, shuffled."""
    random_ = random.Random(f"{SEED} {name}")
    twins: list[tuple[str, str, int]] = []
    for scene in scenes:
        first, words = _two_tellings(random_, scene)
        twins.append((first, tell(scene, words), 1))
        twins.append((first, tell(pick(random_, scene.near_misses()), words), 0))
    order = sorted((random_.random(), place) for place in range(len(twins)))
    labels_are_hidden = name == "test"
    return [
        Row(sentence1, sentence2, HIDDEN_LABEL if labels_are_hidden else label, idx)
        for idx, (sentence1, sentence2, label) in enumerate(twins[place] for _, place in order)
    ]


def rows_by_split() -> dict[str, list[Row]]:
    """The whole data set: `train`, `validation` and `test`, the same on every machine."""
    return {name: _rows(name, scenes) for name, scenes in split_scenes().items()}
