"""The embedded data set and checkpoint: same everywhere, without a shortcut, and sound on disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hfpipe.errors import MachineError, ModelError, RecipeError
from hfpipe.system import embedded
from hfpipe.system.embedded import paraphrases
from hfpipe.system.embedded.paraphrases import Row

CHECKPOINT = Path(embedded.__file__).parent / "tiny-bert"


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Row]]:
    """All rows."""
    return paraphrases.rows_by_split()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("HFPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def words(*sentences: str) -> Counter[str]:
    """The words and marks of sentences, counted."""
    return Counter(" ".join(sentences).lower().replace(",", " ,").replace(".", " .").split())


def twins_of(rows: list[Row]) -> list[list[Row]]:
    """The rows by their first sentence."""
    by_first: dict[str, list[Row]] = {}
    for row in rows:
        by_first.setdefault(row.sentence1, []).append(row)
    return list(by_first.values())


# The rows


def test_rows_are_the_same_everywhere(splits):
    """The rows are pinned by their digest, so a grammar that drifts, or a random generator that does, is noticed."""
    digest = hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()
    assert digest == "8100891389d0ea9f65954f61273d1a9c8d919726a0488d190505ac49d1b3ce80"


def test_splits_are_balanced_and_test_labels_hidden(splits):
    """Exactly half of each labelled split is a paraphrase; the test split hides its labels as GLUE does."""
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2400, "validation": 800, "test": 800}
    for name in ("train", "validation"):
        assert Counter(row.label for row in splits[name]) == {0: len(splits[name]) // 2, 1: len(splits[name]) // 2}
    assert {row.label for row in splits["test"]} == {-1}
    for rows in splits.values():
        assert [row.idx for row in rows] == list(range(len(rows)))


def test_no_sentence_is_in_two_splits(splits):
    """The splits share no sentence, hence no row; within a split no pair comes twice."""
    sentences = {name: {text for row in rows for text in row[:2]} for name, rows in splits.items()}
    assert sentences["train"].isdisjoint(sentences["validation"])
    assert sentences["train"].isdisjoint(sentences["test"])
    assert sentences["validation"].isdisjoint(sentences["test"])
    for rows in splits.values():
        assert len({frozenset(row[:2]) for row in rows}) == len(rows)


def test_twins_hold_the_same_words(splits):
    """Each first sentence comes with a paraphrase and with a near miss of exactly the same words, in another order."""
    for name, rows in splits.items():
        for twins in twins_of(rows):
            first, second = twins
            assert {first.label, second.label} == ({-1} if name == "test" else {0, 1})
            assert first.sentence2 != second.sentence2
            assert words(first.sentence2) == words(second.sentence2)


def test_labels_do_not_follow_the_length(splits):
    """Words a sentence and words shared by the two sentences are spread alike, count for count, under both labels."""

    def shapes(label: int) -> Counter[tuple[int, int, int]]:
        rows = [row for row in splits["train"] if row.label == label]
        counts = [(words(row.sentence1), words(row.sentence2)) for row in rows]
        return Counter((first.total(), second.total(), (first & second).total()) for first, second in counts)

    assert shapes(0) == shapes(1)


def test_a_sentence_is_never_its_own_paraphrase(splits):
    """No row repeats its first sentence, so that being equal is never the answer."""
    assert all(row.sentence1 != row.sentence2 for rows in splits.values() for row in rows)


def test_bag_of_words_learns_nothing(splits):
    """Logistic regression on word counts, on shared words and on the products of both stays under 0.60."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    count = CountVectorizer().fit([text for row in splits["train"] for text in row[:2]])

    def features(rows: list[Row]):
        first, second = count.transform([row.sentence1 for row in rows]), count.transform([r.sentence2 for r in rows])
        return hstack([first, second, first.multiply(second), abs(first - second)]).tocsr()

    model = LogisticRegression(max_iter=500)
    model.fit(features(splits["train"]), [row.label for row in splits["train"]])
    score = model.score(features(splits["validation"]), [row.label for row in splits["validation"]])
    assert score < 0.60


def test_first_words_and_neighbours_learn_little(splits):
    """Pairs of neighbouring words, which see some order, stay under 0.60 too when each sentence is read by itself."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    count = CountVectorizer(ngram_range=(1, 3)).fit([text for row in splits["train"] for text in row[:2]])

    def features(rows: list[Row]):
        return hstack([count.transform([row[side] for row in rows]) for side in (0, 1)]).tocsr()

    model = LogisticRegression(max_iter=500)
    model.fit(features(splits["train"]), [row.label for row in splits["train"]])
    score = model.score(features(splits["validation"]), [row.label for row in splits["validation"]])
    assert score < 0.60


def test_near_misses_are_never_paraphrases():
    """A scene's near misses differ from it, tell other sentences and share its key, which keeps them in its split."""
    import random

    random_ = random.Random(5)
    for _ in range(300):
        scene = paraphrases.draw_scene(random_)
        chosen = paraphrases.draw_words(random_, scene)
        misses = scene.near_misses()
        assert misses
        for miss in misses:
            assert miss.key() == scene.key()
            assert paraphrases.tell(miss, chosen) != paraphrases.tell(scene, chosen)
            assert words(paraphrases.tell(miss, chosen)) == words(paraphrases.tell(scene, chosen))
            assert scene in miss.near_misses(), "an exchange undoes itself"


def test_no_word_belongs_to_two_concepts():
    """A word stands for one concept only; else a near miss could be read as a paraphrase."""
    tables = (paraphrases.PEOPLE, paraphrases.TRAITS, paraphrases.DEEDS, paraphrases.TIMES, (paraphrases.CONJUNCTIONS,))
    every = [word for table in tables for concept in table for word in concept]
    assert len(every) > 70
    assert len(every) == len(set(every))


def test_the_pretraining_text_leaves_the_data_set_out(splits):
    """The stream for pretraining repeats no sentence of the data set, and gives the same text for the same seed."""
    from itertools import islice

    keys = frozenset(scene.key() for scenes in paraphrases.split_scenes().values() for scene in scenes)
    text = list(islice(paraphrases.paraphrase_stream(1, without=keys), 5000))
    assert text == list(islice(paraphrases.paraphrase_stream(1, without=keys), 5000))
    known = {text for rows in splits.values() for row in rows for text in row[:2]}
    assert known.isdisjoint(sentence for pair in text for sentence in pair)


# The folder


def test_the_folder_loads_as_mrpc_does(cache, splits, tmp_path):
    """`load_dataset` gives three splits with GLUE's columns and types, and the rows of the grammar."""
    import datasets

    folder = embedded.dataset_folder("paraphrases")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "arrow"))
    text, label = datasets.Value("string"), datasets.ClassLabel(names=["not_equivalent", "equivalent"])
    expected = {"sentence1": text, "sentence2": text, "label": label, "idx": datasets.Value("int32")}
    assert list(loaded) == ["train", "validation", "test"]
    for name, rows in splits.items():
        assert loaded[name].features == datasets.Features(expected)
        assert list(loaded[name].features) == list(expected)
        assert [Row(**row) for row in loaded[name]] == rows


def test_the_folder_is_written_once(cache):
    """A second call finds the first one's files, untouched, and nothing else is left in the cache."""
    folder = embedded.dataset_folder("paraphrases")
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert embedded.dataset_folder("paraphrases") == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert set(before) == {
        "README.md",
        "manifest.json",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    }
    assert list(cache.iterdir()) == [folder]


@pytest.mark.parametrize("damage", ["truncated", "altered", "deleted", "stray", "no manifest", "readme", "binary sums"])
def test_a_damaged_folder_is_made_again(cache, damage):
    """Whatever happens to a cached file, the next call gives back the very files of the first."""
    folder = embedded.dataset_folder("paraphrases")
    good = {file.name: file.read_bytes() for file in folder.iterdir()}
    train = folder / "train.parquet"
    match damage:
        case "truncated":
            train.write_bytes(good["train.parquet"][:-100])
        case "altered":
            middle = len(good["train.parquet"]) // 2
            flipped = bytearray(good["train.parquet"])
            flipped[middle] ^= 1
            train.write_bytes(flipped)
        case "deleted":
            train.unlink()
        case "stray":
            (folder / "extra.parquet").write_bytes(good["train.parquet"])
        case "no manifest":
            (folder / "manifest.json").unlink()
        case "readme":
            (folder / "README.md").write_text("---\n---\n")
        case "binary sums":
            (folder / "manifest.json").write_bytes(b"\xff\xfe")
    assert embedded.dataset_folder("paraphrases") == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == good
    assert list(cache.iterdir()) == [folder]


def test_processes_may_make_the_folder_together(cache):
    """Four processes that ask at once all get one sound folder and leave no staging behind."""
    code = "import hfpipe.system.embedded as e; f = e.dataset_folder('paraphrases'); assert e._is_sound(f); print(f)"
    asked = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(4)
    ]
    answers = [process.communicate()[0].strip() for process in asked]
    assert [process.returncode for process in asked] == [0] * 4
    assert set(answers) == {str(embedded.dataset_folder("paraphrases"))}
    assert len(list(cache.iterdir())) == 1


def test_the_folder_follows_the_source(cache, monkeypatch):
    """Another source gets another folder, so an upgraded hfpipe never serves the rows of an older one."""
    first = embedded.dataset_folder("paraphrases")
    monkeypatch.setattr(embedded, "digest_of_code", lambda *paths: "0" * 64)
    assert embedded.dataset_folder("paraphrases") != first


@pytest.mark.parametrize(
    ("own", "home", "expected"),
    [("own", "home", "own"), (None, "home", "home/hfpipe"), ("", "home", "home/hfpipe"), (None, None, "~")],
)
def test_where_the_cache_is(tmp_path, monkeypatch, own, home, expected):
    """HFPIPE_CACHE comes first, then HF_HOME, then the user's own cache; an empty variable is none."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for variable, value in (("HFPIPE_CACHE", own), ("HF_HOME", home)):
        monkeypatch.delenv(variable, raising=False)
        if value is not None:
            monkeypatch.setenv(variable, str(tmp_path / value) if value else "")
    wanted = tmp_path / "user/.cache/huggingface/hfpipe" if expected == "~" else tmp_path / expected
    assert embedded.dataset_folder("paraphrases").parent == wanted


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    """A cache that is no folder is the machine's fault, told with the variable that moves it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HFPIPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="set HFPIPE_CACHE to a folder that can be written"):
        embedded.dataset_folder("paraphrases")


def test_unknown_names():
    """A name that is not there is a mistake in the recipe, answered with the names that are."""
    with pytest.raises(RecipeError, match="no embedded data set is named 'mrpc'; allowed: paraphrases"):
        embedded.dataset_folder("mrpc")
    with pytest.raises(RecipeError, match=r"no embedded checkpoint is named '\.\./x'; allowed: tiny-bert"):
        embedded.checkpoint_folder("../x")


def test_importing_is_light():
    """Importing the package loads no heavy library, pyarrow included."""
    heavy = {"torch", "transformers", "datasets", "pyarrow", "tokenizers", "safetensors", "numpy", "pandas"}
    code = f"import sys, hfpipe.system.embedded; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The checkpoint


def test_the_checkpoint_is_small_and_holds_no_pickle():
    """The checkpoint is 3 MB at most, weights in safetensors, and exactly the files it should have."""
    folder = embedded.checkpoint_folder("tiny-bert")
    assert folder == CHECKPOINT
    files = {file.name: file for file in folder.iterdir()}
    assert set(files) == {*embedded.CHECKPOINT_FILES, "README.md"}
    assert sum(file.stat().st_size for file in files.values()) <= 3_000_000
    assert all(not file.read_bytes().startswith((b"\x80", b"PK\x03\x04")) for file in files.values())


def test_the_weights_are_the_documented_ones():
    """The model card names the SHA-256 of the very weights that are shipped."""
    digest = hashlib.sha256((CHECKPOINT / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (CHECKPOINT / "README.md").read_text(encoding="utf-8")


def test_an_incomplete_installation(monkeypatch, tmp_path):
    """A package without its weights is an error that names the missing file."""
    monkeypatch.setattr(embedded, "_HERE", tmp_path)
    with pytest.raises(ModelError, match=r"lacks config\.json, model\.safetensors"):
        embedded.checkpoint_folder("tiny-bert")


@pytest.fixture
def without_network(monkeypatch):
    """No connection can be made."""
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_only_the_classifier_is_missing(without_network):
    """`from_pretrained` tries no connection, finds every weight but the classifier's, pooler included, and no other."""
    from transformers import AutoModelForSequenceClassification

    _, report = AutoModelForSequenceClassification.from_pretrained(CHECKPOINT, num_labels=2, output_loading_info=True)
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]


def test_the_encoder_is_whole(without_network):
    """As a plain encoder the checkpoint lacks nothing, its dropout is 0.1 and its sizes fit the tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    model, report = AutoModel.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_position_embeddings == tokenizer.model_max_length
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.hidden_dropout_prob == model.config.attention_probs_dropout_prob == 0.1


def test_the_tokenizer_knows_the_grammar(without_network, splits):
    """Each word of the data set is one token of its own, every pair fits the model, and other words are spelt out."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    rows = [row for rows in splits.values() for row in rows]
    encoded = tokenizer([row.sentence1 for row in rows], [row.sentence2 for row in rows])["input_ids"]
    assert max(map(len, encoded)) <= tokenizer.model_max_length
    for row, ids in zip(rows, encoded, strict=True):
        assert len(ids) == words(row.sentence1, row.sentence2).total() + 3
    assert all(tokenizer.unk_token_id not in ids for ids in encoded)
    assert tokenizer.tokenize("Zeppelin!")[0] == "z"
    assert tokenizer.unk_token not in tokenizer.tokenize("quizzical zeppelins, jukebox 1984 -- (why?)")


def test_the_tokenizer_makes_pairs(without_network):
    """A pair is `[CLS] first [SEP] second [SEP]` with token types 0 and 1, lower-cased, as BERT wants it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    pair = tokenizer("The king slept.", "THE QUEEN")
    tokens = ["[CLS]", "the", "king", "slept", ".", "[SEP]", "the", "queen", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == tokens
    assert pair["token_type_ids"] == [0] * 6 + [1] * 3
    assert pair["attention_mask"] == [1] * 9
    assert tokenizer.mask_token == "[MASK]"


def test_both_tokenizer_files_hold_one_vocabulary():
    """`vocab.txt` and `tokenizer.json` give every token the same id."""
    listed = (CHECKPOINT / "vocab.txt").read_text(encoding="utf-8").splitlines()
    stored = json.loads((CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert {token: place for place, token in enumerate(listed)} == stored
