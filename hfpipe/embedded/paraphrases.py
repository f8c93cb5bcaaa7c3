"""A small English-like grammar and the sentence pairs drawn from it: MRPC's columns without a download.

A *scene* says who did what to whom. Every scene can be told in several *forms* (active and passive, "before" and
"after", "taller" and "shorter" ...), each word in one of its synonyms, each adverbial at either end. Two tellings of
one scene are a paraphrase. A *near miss* tells, in the same form and with the same words, the scene in which two
participants, two events or two adjectives have changed places.

Rows come as twins: one first sentence, once with the paraphrase and once with its near miss. The twins hold exactly the
same words, so whatever counts words, lengths or overlaps sees the same thing under both labels and is right in exactly
half of the rows; only the order of the words tells.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

SEED = 20240229
SCENES = {"train": 1600, "validation": 400, "test": 400}
LABEL_NAMES = ("not_equivalent", "equivalent")
HIDDEN_LABEL = -1  # what GLUE writes into a test split

# A concept is a tuple of words that may stand for each other; the sentence picks one of them.
Concept = tuple[str, ...]

_PEOPLE: tuple[Concept, ...] = (
    ("doctor", "physician"),
    ("teacher",),
    ("farmer",),
    ("lawyer", "attorney"),
    ("nurse",),
    ("pilot",),
    ("baker",),
    ("writer", "author"),
    ("soldier",),
    ("sailor",),
    ("student", "pupil"),
    ("singer",),
    ("painter",),
    ("driver",),
    ("child", "kid"),
    ("king",),
    ("queen",),
    ("thief", "robber"),
    ("judge",),
    ("waiter",),
    ("guard",),
    ("tailor",),
    ("hunter",),
    ("actor",),
    ("dancer",),
    ("priest",),
    ("clerk",),
    ("butcher",),
    ("neighbor",),
    ("stranger",),
)
_THINGS: tuple[Concept, ...] = (
    ("book",),
    ("lamp",),
    ("cup", "mug"),
    ("box",),
    ("chair",),
    ("picture", "photo"),
    ("clock",),
    ("coat", "jacket"),
    ("bottle",),
    ("key",),
    ("stone", "rock"),
    ("letter",),
    ("basket",),
    ("hat",),
    ("ring",),
    ("map",),
)
_TRAITS: tuple[Concept, ...] = (
    ("clever", "smart"),
    ("angry", "furious"),
    ("happy", "cheerful"),
    ("quiet", "silent"),
    ("brave", "fearless"),
    ("tired", "weary"),
    ("sick", "ill"),
    ("rich", "wealthy"),
    ("old", "elderly"),
    ("young",),
    ("famous",),
    ("polite",),
)
_COLORS: tuple[Concept, ...] = (
    ("red",),
    ("blue",),
    ("green",),
    ("black",),
    ("white",),
    ("big", "large"),
    ("small", "little"),
    ("new",),
)
# Past tense and participle are the same word. No symmetric verb ("met"): its near miss would be a paraphrase.
_ACTIONS: tuple[Concept, ...] = (
    ("chased", "pursued"),
    ("helped", "assisted"),
    ("called", "phoned"),
    ("watched", "observed"),
    ("greeted", "welcomed"),
    ("hired", "employed"),
    ("warned", "alerted"),
    ("praised", "applauded"),
    ("saved", "rescued"),
    ("tricked", "fooled"),
    ("hit", "struck"),
    ("followed",),
    ("thanked",),
    ("visited",),
    ("blamed",),
    ("feared",),
)
_EVENTS: tuple[Concept, ...] = (
    ("left", "departed"),
    ("arrived", "came"),
    ("spoke", "talked"),
    ("cried", "wept"),
    ("stopped", "halted"),
    ("shouted", "yelled"),
    ("slept",),
    ("smiled",),
    ("fell",),
    ("laughed",),
    ("sang",),
    ("waited",),
)
_ADVERBIALS: tuple[Concept, ...] = (
    ("in the morning",),
    ("at noon",),
    ("on Monday",),
    ("on Friday",),
    ("last week",),
    ("yesterday",),
    ("in the park",),
    ("near the station",),
    ("at the market",),
    ("behind the church",),
)

# {a}, {b}: the two participants, with their adjectives; {v}: the verb; {w}: the second verb; {t}: a thing.
_ACTION_FORMS = (
    "the {a} {v} the {b}",
    "the {b} was {v} by the {a}",
    "it was the {a} who {v} the {b}",
    "it was the {b} who was {v} by the {a}",
)
_ORDER_FORMS = (
    "the {a} {v} before the {b} {w}",
    "the {b} {w} after the {a} {v}",
    "before the {b} {w} , the {a} {v}",
    "after the {a} {v} , the {b} {w}",
    "the {a} {v} and then the {b} {w}",
)
_TRANSFER_FORMS = (
    (
        "the {a} gave the {t} to the {b}",
        "the {a} gave the {b} the {t}",
        "the {b} was given the {t} by the {a}",
        "the {b} received the {t} from the {a}",
    ),
    (
        "the {a} sold the {t} to the {b}",
        "the {a} sold the {b} the {t}",
        "the {t} was sold to the {b} by the {a}",
        "the {b} bought the {t} from the {a}",
    ),
    (
        "the {a} lent the {t} to the {b}",
        "the {a} lent the {b} the {t}",
        "the {t} was lent to the {b} by the {a}",
        "the {b} borrowed the {t} from the {a}",
    ),
)
_COMPARISON_FORMS = tuple(
    (
        f"the {{a}} was {more} than the {{b}}",
        f"the {{b}} was {less} than the {{a}}",
        f"compared with the {{b}} , the {{a}} was {more}",
        f"compared with the {{a}} , the {{b}} was {less}",
    )
    for more, less in (
        ("taller", "shorter"),
        ("older", "younger"),
        ("richer", "poorer"),
        ("faster", "slower"),
        ("stronger", "weaker"),
        ("happier", "sadder"),
    )
)
_PLACE_FORMS = tuple(
    (
        f"the {{a}} was {over} the {{b}}",
        f"the {{b}} was {under} the {{a}}",
        f"{over} the {{b}} was the {{a}}",
        f"{under} the {{a}} was the {{b}}",
    )
    for over, under in (("above", "below"), ("in front of", "behind"), ("left of", "right of"))
)

_Item = TypeVar("_Item")


class Row(NamedTuple):
    """One row, in the order of MRPC's columns; `label` indexes `LABEL_NAMES` or is -1."""

    sentence1: str
    sentence2: str
    label: int
    idx: int


@dataclass(frozen=True)
class Scene:
    """What happened, before any word is chosen.

    `forms` are the ways to tell it, all true of the same scene. `adjectives` belong to `a` and `b`. `verb_b` is the
    second participant's own verb, where it has one.
    """

    forms: tuple[str, ...]
    a: Concept
    b: Concept
    adjectives: tuple[Concept | None, Concept | None] = (None, None)
    verb: Concept | None = None
    verb_b: Concept | None = None
    thing: Concept | None = None
    adverbial: Concept | None = None

    def near_misses(self) -> list[Scene]:
        """Every scene made of the same concepts that differs from this one by one exchange."""
        first, second = self.adjectives
        misses = [replace(self, a=self.b, b=self.a, adjectives=(second, first))]
        if first != second:
            misses.append(replace(self, adjectives=(second, first)))
        if self.verb_b is not None:  # the two events in the other order of time
            events = replace(misses[0], verb=self.verb_b, verb_b=self.verb)
            misses.append(events)
        return misses

    def key(self) -> frozenset[object]:
        """The same for a scene and its near misses, and for no other scene: what keeps the splits apart."""
        words = (self.a, self.b, *self.adjectives, self.verb, self.verb_b, self.thing, self.adverbial)
        return frozenset({self.forms, *((concept, words.count(concept)) for concept in words)})


def _pick(random_: random.Random, items: Sequence[_Item]) -> _Item:
    """One of the items; built on `random()` alone, the only draw that Python promises never to change."""
    return items[int(random_.random() * len(items))]


def _pick_two(random_: random.Random, items: Sequence[_Item]) -> tuple[_Item, _Item]:
    """Two different items, every ordered pair as likely as any other."""
    first = int(random_.random() * len(items))
    second = (first + 1 + int(random_.random() * (len(items) - 1))) % len(items)
    return items[first], items[second]


def _adjectives(random_: random.Random, concepts: Sequence[Concept]) -> tuple[Concept | None, Concept | None]:
    """Two different adjectives, or one of them left out, or none: the left and the right side alike."""
    first, second = _pick_two(random_, concepts)
    return _pick(random_, ((first, second), (first, second), (first, None), (None, second), (None, None)))


def draw_scene(random_: random.Random) -> Scene:
    """A scene; a scene and each of its near misses are equally likely, so neither class has words of its own."""
    kind = _pick(random_, ("action", "action", "order", "transfer", "comparison", "place"))
    if kind == "place":
        a, b = _pick_two(random_, _THINGS)
        return Scene(_pick(random_, _PLACE_FORMS), a, b, _adjectives(random_, _COLORS))
    a, b = _pick_two(random_, _PEOPLE)
    if kind == "comparison":
        return Scene(_pick(random_, _COMPARISON_FORMS), a, b)
    adjectives = _adjectives(random_, _TRAITS)
    if kind == "order":
        verb, verb_b = _pick_two(random_, _EVENTS)
        return Scene(_ORDER_FORMS, a, b, adjectives, verb=verb, verb_b=verb_b)
    adverbial = _pick(random_, (None, _pick(random_, _ADVERBIALS)))
    if kind == "transfer":
        forms = _pick(random_, _TRANSFER_FORMS)
        return Scene(forms, a, b, adjectives, thing=_pick(random_, _THINGS), adverbial=adverbial)
    return Scene(_ACTION_FORMS, a, b, adjectives, verb=_pick(random_, _ACTIONS), adverbial=adverbial)


@dataclass(frozen=True)
class Telling:
    """How a scene is told: which form, the adverbial first or last, and a word for each concept."""

    form: int
    adverbial_first: bool
    words: dict[Concept, str]

    def sentence(self, scene: Scene) -> str:
        """The scene as an English sentence, capitalised and with its full stop."""

        def word(concept: Concept | None) -> str:
            return "" if concept is None else self.words[concept]

        first, second = scene.adjectives
        text = scene.forms[self.form].format(
            a=f"{word(first)} {word(scene.a)}".strip(),
            b=f"{word(second)} {word(scene.b)}".strip(),
            v=word(scene.verb),
            w=word(scene.verb_b),
            t=word(scene.thing),
        )
        if scene.adverbial is not None:
            adverbial = word(scene.adverbial)
            text = f"{adverbial} , {text}" if self.adverbial_first else f"{text} {adverbial}"
        return text[0].upper() + text[1:].replace(" ,", ",") + "."


def draw_tellings(random_: random.Random, scene: Scene) -> tuple[Telling, Telling]:
    """Two tellings in different forms, so that no sentence is its partner's copy but for a synonym."""
    concepts = [scene.a, scene.b, *scene.adjectives, scene.verb, scene.verb_b, scene.thing, scene.adverbial]

    def telling(form: int) -> Telling:
        words = {concept: _pick(random_, concept) for concept in concepts if concept is not None}
        return Telling(form, random_.random() < 0.5, words)

    first, second = _pick_two(random_, range(len(scene.forms)))
    return telling(first), telling(second)


def paraphrase_stream(seed: int, *, without: frozenset[frozenset[object]]) -> Iterator[tuple[str, str]]:
    """Paraphrases without end and without labels, for pretraining.

    Args:
        seed: of the generator; any but `SEED`.
        without: scenes, by `Scene.key`, that must not occur.
    """
    random_ = random.Random(seed)
    while True:
        scene = draw_scene(random_)
        if scene.key() not in without:
            first, second = draw_tellings(random_, scene)
            yield first.sentence(scene), second.sentence(scene)


def split_scenes() -> dict[str, list[Scene]]:
    """The scenes of each split; no two of them, in one split or in two, have the same key."""
    random_ = random.Random(SEED)
    taken: set[frozenset[object]] = set()
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
        first, second = draw_tellings(random_, scene)
        sentence1 = first.sentence(scene)
        twins.append((sentence1, second.sentence(scene), 1))
        twins.append((sentence1, second.sentence(_pick(random_, scene.near_misses())), 0))
    order = sorted((random_.random(), place) for place in range(len(twins)))
    labels_are_hidden = name == "test"
    return [
        Row(sentence1, sentence2, HIDDEN_LABEL if labels_are_hidden else label, idx)
        for idx, (sentence1, sentence2, label) in enumerate(twins[place] for _, place in order)
    ]


def rows_by_split() -> dict[str, list[Row]]:
    """The whole data set: `train`, `validation` and `test`, the same on every machine."""
    return {name: _rows(name, scenes) for name, scenes in split_scenes().items()}
