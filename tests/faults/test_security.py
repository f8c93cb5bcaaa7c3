"""Faults 65 to 72: nothing is unpickled, run, reached or written down that a user did not ask for."""

from __future__ import annotations

import bz2
import gzip
import http.server
import json
import lzma
import os
import pickle
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import hfpipe
from hfpipe.errors import DataError, RecipeError, RefusedError
from hfpipe.parts.data import urls
from hfpipe.parts.data.formats import compressed
from hfpipe.parts.data.open import open_data
from hfpipe.parts.data.peek import peek
from hfpipe.parts.data.sources import stream_source
from hfpipe.parts.data.untrusted import refuse_archive
from hfpipe.recipe import load_recipe
from hfpipe.runs import find_run
from hfpipe.runs.store import Run
from hfpipe.system.redaction import redact


@pytest.fixture
def train(recipe_fields: dict[str, Any], tmp_path: Path) -> Callable[..., hfpipe.Run]:
    """One step of the tiny recipe with overrides."""

    def finetune(*overrides: str, **options: Any) -> hfpipe.Run:
        return hfpipe.finetune(
            recipe_fields, overrides=["train.max_steps=1", *overrides], runs_dir=tmp_path / "runs", **options
        )

    return finetune


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_fault_65_no_pickle_is_ever_opened(train: Callable[..., hfpipe.Run], checkpoint: Path, tmp_path: Path) -> None:
    """Beside safetensors a pickle is left alone; a checkpoint that has nothing else is refused; neither is opened."""
    mark = tmp_path / "exploded"
    for name in ("training_args.bin", "rng_state.pth", "optimizer.pt", "scheduler.pt", "pytorch_model.bin"):
        (checkpoint / name).write_bytes(pickle.dumps(Bomb(mark)))
    train(f"model.checkpoint={checkpoint}")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(RefusedError, match=r"has its weights as a pickle \(pytorch_model.bin"):
        train(f"model.checkpoint={checkpoint}")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the bomb would have worked


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_fault_66_a_checkpoint_with_code_of_its_own(
    train: Callable[..., hfpipe.Run], checkpoint: Path, tmp_path: Path, file: str
) -> None:
    """`auto_map` in the model or in the tokenizer is refused without a question and without a run."""
    (checkpoint / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    described = json.loads((checkpoint / file).read_text())
    kind = "AutoModelForSequenceClassification" if file == "config.json" else "AutoTokenizer"
    described |= {"auto_map": {kind: "evil.Model"}, "trust_remote_code": True}
    (checkpoint / file).write_text(json.dumps(described))
    with pytest.raises(RefusedError, match="brings code of its own"):
        train(f"model.checkpoint={checkpoint}")
    assert not (tmp_path / "ran").exists()


def test_fault_66_a_metric_script_runs_only_when_it_is_allowed(
    train: Callable[..., hfpipe.Run], tmp_path: Path, hfpipe_command: Callable[..., Any], recipe_fields: dict[str, Any]
) -> None:
    """A script from a file needs `allow_code`, one from the Hub its commit too; what runs is a notice of the run."""
    script = tmp_path / "mine.py"
    script.write_text(
        "import datasets\n"
        "import evaluate\n"
        "class Mine(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        value = datasets.Value('int64')\n"
        "        features = datasets.Features({'predictions': value, 'references': value})\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'mine': 0.5}\n"
    )
    with pytest.raises(RefusedError, match="is a script, and computing it runs its code"):
        train(f"evaluate.metrics=[{script}]", "evaluate.best=null")
    run = train(f"evaluate.metrics=[{script}]", "evaluate.best=null", "allow_code=true")
    assert run.metrics["mine"] == 0.5
    assert any("code that is not hfpipe's runs here" in record.get("text", "") for record in run.records)
    for metric in ("evaluate:bleu", "{name: 'evaluate:bleu', revision: main}"):
        with pytest.raises(RefusedError, match="which can become other code"):
            train(f"evaluate.metrics=[{metric}]", "evaluate.best=null", "allow_code=true")
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({**recipe_fields, "evaluate": {"metrics": ["evaluate:bleu"]}}))
    assert hfpipe_command("recipes", "validate", file).code == 7


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "sub/../../x", ".."])
def test_fault_67_an_index_of_weights_that_leads_out(
    train: Callable[..., hfpipe.Run], checkpoint: Path, shard: str
) -> None:
    """Parts of the weights are files beside their index, and nothing else."""
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(RefusedError, match="as a part of the weights; allowed: names of files beside it"):
        train(f"model.checkpoint={checkpoint}")


def test_fault_67_a_link_out_of_the_folder(train: Callable[..., hfpipe.Run], checkpoint: Path, tmp_path: Path) -> None:
    """A link to a file elsewhere is refused; one within the folder, or within the Hub's cache, is not."""
    elsewhere = tmp_path / "elsewhere.safetensors"
    shutil.move(checkpoint / "model.safetensors", elsewhere)
    (checkpoint / "model.safetensors").symlink_to(elsewhere)
    with pytest.raises(RefusedError, match=r"is a link to .*, out of its folder"):
        train(f"model.checkpoint={checkpoint}")
    cache = tmp_path / "models--tiny"
    (cache / "blobs").mkdir(parents=True)
    shutil.copytree(checkpoint, cache / "snapshots" / "abc", symlinks=True)
    shutil.move(elsewhere, cache / "blobs" / "weights")
    linked = cache / "snapshots" / "abc" / "model.safetensors"
    linked.unlink()
    linked.symlink_to("../../blobs/weights")
    assert train(f"model.checkpoint={linked.parent}").status == "finished"


def test_fault_67_a_data_folder_that_leads_out(
    train: Callable[..., hfpipe.Run], pairs_folder: Path, tmp_path: Path
) -> None:
    """A README can't make hfpipe fetch an address, and a link can't make it read a file elsewhere; nor streamed or peeked."""
    linked = Path(shutil.copytree(pairs_folder, tmp_path / "linked"))
    shutil.move(linked / "train.parquet", tmp_path / "train.parquet")
    (linked / "train.parquet").symlink_to(tmp_path / "train.parquet")

    def refused(folder: Path, told: str) -> None:
        streamed = [f"dataset.path={folder}", "dataset.streaming=true"]
        ways = (lambda: train(streamed[0]), lambda: train(*streamed), lambda: peek(str(folder)))
        for read in ways:
            with pytest.raises(RefusedError, match=told):
                read()

    refused(linked, "leads out of")
    for target in ("https://example.org/train.parquet", "../train.parquet", str(tmp_path / "train.parquet")):
        named = Path(shutil.copytree(pairs_folder, tmp_path / f"named{len(target)}"))
        readme = (named / "README.md").read_text().replace("path: train.parquet", f"path: {target}")
        (named / "README.md").write_text(readme)
        refused(named, r"names '.*' as its data")


@pytest.mark.parametrize(
    "name", ["../../x", "/x", "a\0b", "x" * 300, "con", "NUL.txt", "lpt1", "", ".hidden", "a b", "Ä", "a/b", "-x"]
)
def test_fault_68_a_name_that_is_no_run_id(
    train: Callable[..., hfpipe.Run], tmp_path: Path, recipe_fields: dict[str, Any], name: str
) -> None:
    """Whatever could be a path, a device or an option is refused before anything is made."""
    with pytest.raises(RecipeError, match="is no run id"):
        Run.create(load_recipe(recipe_fields), tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(RecipeError):
        find_run(name, tmp_path / "runs")


@pytest.fixture
def server() -> Iterator[str]:
    """A web server on loopback with a csv file, and redirects to wherever the path says."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
                return
            content = b"sentence1,sentence2,label\nbak,bal,same\nbam,ban,other\n"
            self.send_response(200 if self.path.endswith(".csv") else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/x.csv",
        "https://example.org/x.csv",
        "file:///etc/passwd",
        "ftp://example.org/x.csv",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/x.csv",
    ],
)
def test_fault_69_an_address_that_is_not_allowed(train: Callable[..., hfpipe.Run], address: str) -> None:
    """No scheme and no host is taken that the recipe does not name."""
    with pytest.raises(RefusedError, match="is an address that the recipe does not allow"):
        train("dataset.path=csv", f"dataset.data_files={address}")


def test_fault_69_redirects_are_looked_at_again(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An allowed host may redirect to itself, and not to another one; what was fetched is fetched once."""
    monkeypatch.setattr(urls.hub, "is_offline", lambda: False)
    monkeypatch.setattr(urls.datasets.config, "HF_DATASETS_CACHE", tmp_path)
    found = urls.fetch(f"{server}/to/{server}/rows.csv", [server], "here")
    assert found.read_text().startswith("sentence1,")
    for astray in ("http://localhost:1/rows.csv", "file:///etc/passwd", "http://169.254.169.254/x"):
        with pytest.raises(hfpipe.HfpipeError) as error:
            urls.fetch(f"{server}/to/{astray}", [server], "here")
        assert error.value.exit_code == 7, str(error.value)
    with pytest.raises(hfpipe.HfpipeError, match="404"):
        urls.fetch(f"{server}/nothing", [server], "here")
    monkeypatch.setattr(urls.hub, "is_offline", lambda: True)
    assert urls.fetch(f"{server}/to/{server}/rows.csv", [server], "here") == found


def test_fault_69_a_name_that_leads_into_a_private_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allowed name whose address is loopback or link-local is refused; the origin itself can be allowed."""
    monkeypatch.setattr(urls.hub, "is_offline", lambda: False)
    for private in ("127.0.0.1", "169.254.169.254", "10.1.2.3", "::1"):
        monkeypatch.setattr(urls.socket, "getaddrinfo", lambda *args, to=private: [(0, 0, 0, "", (to, 443))])
        with pytest.raises(RefusedError, match="no address of the public network"):
            urls.fetch("https://data.example.org/x.csv", ["data.example.org"], "here")


def test_fault_70_archives_are_not_opened(train: Callable[..., hfpipe.Run], tmp_path: Path) -> None:
    """A zip or tar is no data file: nothing is unpacked, wherever its names lead and however large it would become."""
    archive = tmp_path / "rows.csv.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../../escaped.csv", "sentence1,sentence2,label\n" + "a,b,same\n" * 10)
    with pytest.raises(RefusedError, match="is an archive"):
        train("dataset.path=csv", f"dataset.data_files={archive}")
    folder = tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "train.zip", "w") as packed:
        packed.writestr("train.csv", "sentence1,sentence2,label\n" + "a,b,same\n" * 10)
    with pytest.raises(RefusedError, match="is an archive"):
        train(f"dataset.path={folder}")
    assert not list(tmp_path.parent.rglob("escaped.csv"))


def test_fault_70_a_tar_under_another_name(train: Callable[..., hfpipe.Run], tmp_path: Path) -> None:
    """What is a tar inside is an archive whatever it is called, compressed or not: the library would unpack it."""
    (tmp_path / "inside.jsonl").write_text('{"a": 1}\n')
    for form in ("", "gz"):
        packed = tmp_path / f"rows{form}.jsonl"
        with tarfile.open(packed, f"w:{form}") as archive:
            archive.add(tmp_path / "inside.jsonl", "../../escaped.jsonl")
        with pytest.raises(RefusedError, match="is an archive"):
            train("dataset.path=jsonl", f"dataset.data_files={packed}")


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda content: gzip.compress(content, 6),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: bytes(pa.Codec("zstd").compress(content, asbytes=True)),
}
ROWS = b"".join(b'{"text": "NA %d", "label": "%s"}\n' % (row, b"no" if row % 2 else b"yes") for row in range(4000))
TYPED = (
    "---\ndataset_info:\n  features:\n  - {name: text, dtype: string}\n  - {name: label, dtype: string}\n---\nRows.\n"
)


def bomb(path: Path, suffix: str) -> str:
    """A file that unpacks to 1 GB of spaces: as many small ones behind each other as that takes."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(COMPRESSED[suffix](b" " * (32 << 20)) * 32)
    assert path.stat().st_size < 1.1e6
    return str(path)


def reading(path: Path | str, *, files: str | None = None, streaming: bool = False) -> hfpipe.Recipe:
    """A recipe of these data."""
    dataset = {"path": str(path), "splits": {"evaluation": None}, "data_files": files, "streaming": streaming}
    fields = {"dataset": dataset, "task": {"text": "text"}, "model": {"checkpoint": "embedded:tiny"}}
    return load_recipe(fields, ["train.max_steps=1"])


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("form", ["jsonl", "csv", "text"])
def test_fault_70_a_file_that_unpacks_without_end(tmp_path: Path, form: str, suffix: str) -> None:
    """A compressed file that would become a gigabyte is read no further than an honest one could go."""
    recipe = reading(form, files=bomb(tmp_path / f"rows.{form}.{suffix}", suffix))
    with pytest.raises(RefusedError, match=r"rows\.\w+\.\w+: (gzip|bzip2|xz) data of .* that unpack to more than .*"):
        open_data(recipe)


@pytest.mark.parametrize("kind", ["strict", "typed", "streamed", "peeked", "predicted"])
def test_fault_70_wherever_a_compressed_file_is_read(
    tmp_path: Path, kind: str, train: Callable[..., hfpipe.Run]
) -> None:
    """In a folder that hfpipe reads, in one whose README gives it to the library, streamed, looked into or labelled."""
    folder = tmp_path / "data"
    file = bomb(folder / "train.jsonl.gz", "gz")
    if kind == "typed":
        (folder / "README.md").write_text(TYPED)
    read: dict[str, Callable[[], object]] = {
        "strict": lambda: open_data(reading(folder)),
        "typed": lambda: open_data(reading(folder)),
        "streamed": lambda: stream_source(reading(folder, streaming=True)),
        "peeked": lambda: peek(str(folder)),
        "predicted": lambda: train().predict(file),
    }
    with pytest.raises(RefusedError, match=r"unpack to more than 1[0-9]{2},[0-9]{3},[0-9]{3} bytes") as caught:
        read[kind]()
    assert caught.value.exit_code == 7


def test_fault_70_a_compressed_file_is_no_tar_by_its_own_bytes(tmp_path: Path) -> None:
    """One second in 255, the time in a gzip header makes its first 512 bytes add up as those of a tar's header do."""
    file = tmp_path / "rows.jsonl.gz"
    packed = bytearray(gzip.compress(b" " * (32 << 20), 6, mtime=0))
    for second in range(1_795_953_600, 1_795_953_600 + 256):
        packed[4:8] = second.to_bytes(4, "little")
        file.write_bytes(packed)
        refuse_archive(str(file), "dataset.path")


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("kind", ["files", "strict", "typed", "streamed", "peeked"])
def test_fault_70_an_honest_compressed_file(
    tmp_path: Path, kind: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are read as they were written; where the disk has no room for them, that is said before they fill it."""
    if suffix == "zst" and kind in ("typed", "streamed", "peeked"):
        pytest.importorskip("zstandard", reason="the datasets library unpacks .zst with zstandard, which is not here")
    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / f"train.jsonl.{suffix}"
    file.write_bytes(COMPRESSED[suffix](ROWS))
    if kind == "typed":
        (folder / "README.md").write_text(TYPED)
    recipe = reading("jsonl", files=str(file)) if kind == "files" else reading(folder, streaming=kind == "streamed")

    def first() -> object:
        if kind == "peeked":
            return peek(str(folder), rows=1).rows[0]
        rows = stream_source(recipe)[3] if kind == "streamed" else open_data(recipe).splits
        return next(iter(rows["train"]))

    if kind in ("files", "strict", "typed"):
        with monkeypatch.context() as patch:
            patch.setattr(compressed.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
            with pytest.raises(RefusedError, match="unpack to more than 100,000 bytes"):
                first()
    assert first() == {"text": "NA 0", "label": "yes"}


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_fault_70_an_honest_compressed_file_is_labelled(
    train: Callable[..., hfpipe.Run], tmp_path: Path, suffix: str
) -> None:
    """`predict` reads it by its ending, as the file that it was."""
    rows = [{"sentence1": "bak", "sentence2": word} for word in ("bak", "bal", "bam")]
    for form, text in (
        ("jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
        ("json", json.dumps(rows)),
        ("csv", "sentence1,sentence2\nbak,bak\nbak,bal\nbak,bam\n"),
    ):
        file = tmp_path / f"rows.{form}.{suffix}"
        file.write_bytes(COMPRESSED[suffix](text.encode()))
        run = train(name=f"{form}-run")
        assert run.predict(file) == run.predict(rows)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_fault_70_a_compressed_file_that_is_cut(tmp_path: Path, suffix: str) -> None:
    """A file that was cut is exit 3 with its name, never fewer rows."""
    whole = COMPRESSED[suffix](ROWS)
    file = tmp_path / f"rows.jsonl.{suffix}"
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"rows\.jsonl\.{suffix}: the \w+ data are damaged or cut short"):
        open_data(reading("jsonl", files=str(file)))


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_fault_70_streams_behind_each_other(tmp_path: Path, suffix: str) -> None:
    """All of them are read; a damaged one behind the first is told, where Python's own readers take it for no data."""
    file = tmp_path / f"rows.jsonl.{suffix}"
    first, second = COMPRESSED[suffix](ROWS), COMPRESSED[suffix](ROWS)
    file.write_bytes(first + (b"\0" * 4 if suffix == "xz" else b"") + second)
    assert len(open_data(reading("jsonl", files=str(file))).splits["train"]) == 8000
    file.write_bytes(first + bytes([second[0] ^ 1]) + second[1:])
    with pytest.raises(DataError, match=r"the \w+ data are damaged or cut short"):
        open_data(reading("jsonl", files=str(file)))


def test_fault_70_a_text_that_begins_like_bzip2(tmp_path: Path) -> None:
    """Three letters do not make a csv of names a compressed file."""
    file = tmp_path / "rows.csv"
    file.write_text("BZhang,text,label\na,b,no\nc,d,yes\n")
    assert open_data(reading("csv", files=str(file))).splits["train"].column_names == ["BZhang", "text", "label"]


def test_fault_72_no_secret_and_no_home_is_written_down(
    train: Callable[..., hfpipe.Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Path
) -> None:
    """Planted in the environment, in the command, in an error and in a warning, neither is in any file of the run."""
    token, key = "hf_" + "AbCdEfGhIj" * 4, "planted-secret-value"
    home = tmp_path / "home" / "someone"
    shutil.copytree(checkpoint, home / "checkpoint")
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("sys.argv", ["hfpipe", "finetune", f"--token={token}", f"{home}/recipe.yaml", key])

    def loud(logits: Any, targets: Any) -> Any:
        import logging

        logging.getLogger("transformers").warning("token %s of %s with %s", token, home, key)
        return logits.sum(dim=-1)

    run = train(f"model.checkpoint={home / 'checkpoint'}", "checkpoints.keep_state=true", loss=loud)
    planted = (token.encode(), key.encode(), b"home/someone")  # no way to it from the run's folder either
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in files:
        assert not [one for one in planted if one in file.read_bytes()], file
    assert "token ***" in (run.path / "log.txt").read_text()
    assert "checkpoint: ~/checkpoint" in " ".join((run.path / "recipe.yaml").read_text().split())
    assert run.recipe.model.checkpoint == str(home / "checkpoint")  # whose home it is, is known where it is read
    assert hfpipe.load_recipe(run.path / "recipe.yaml").model.checkpoint == str(home / "checkpoint")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "another"))
    assert hfpipe.load_recipe(run.path / "recipe.yaml").model.checkpoint == f"{tmp_path}/home/another/checkpoint"


def test_fault_72_innocent_words_stay() -> None:
    """Short values and paths of the environment are no secrets, and a longer folder is not the home."""
    home = str(Path.home())
    os.environ["X_TOKEN"] = "abc"
    try:
        assert redact("abc and /tmp/x") == "abc and /tmp/x"
    finally:
        del os.environ["X_TOKEN"]
    assert redact(f"{home}sick") == f"{home}sick"
    assert redact(f"'{home}/x' and {home}") == "'~/x' and ~/"
    assert redact("hf_" + "a" * 34) == "***"
