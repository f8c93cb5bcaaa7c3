"""Faults 65 to 72: nothing is unpickled, run, reached or written down that a user did not ask for."""

from __future__ import annotations

import http.server
import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hfpipe
from hfpipe.errors import RecipeError, RefusedError
from hfpipe.parts import addresses
from hfpipe.recipe import load_recipe
from hfpipe.runs import find_run
from hfpipe.runs.discretion import discreet
from hfpipe.runs.store import Run


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
    """A README can't make hfpipe fetch an address, and a link in the folder can't make it read a file elsewhere."""
    linked = Path(shutil.copytree(pairs_folder, tmp_path / "linked"))
    shutil.move(linked / "train.parquet", tmp_path / "train.parquet")
    (linked / "train.parquet").symlink_to(tmp_path / "train.parquet")
    with pytest.raises(RefusedError, match="leads out of"):
        train(f"dataset.path={linked}")
    for target in ("https://example.org/train.parquet", "../train.parquet", str(tmp_path / "train.parquet")):
        named = Path(shutil.copytree(pairs_folder, tmp_path / f"named{len(target)}"))
        readme = (named / "README.md").read_text().replace("path: train.parquet", f"path: {target}")
        (named / "README.md").write_text(readme)
        with pytest.raises(RefusedError, match=r"names '.*' as its data"):
            train(f"dataset.path={named}")


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
    monkeypatch.setattr(addresses.hub, "is_offline", lambda: False)
    monkeypatch.setattr(addresses.datasets.config, "HF_DATASETS_CACHE", tmp_path)
    found = addresses.fetch(f"{server}/to/{server}/rows.csv", [server], "here")
    assert found.read_text().startswith("sentence1,")
    for astray in ("http://localhost:1/rows.csv", "file:///etc/passwd", "http://169.254.169.254/x"):
        with pytest.raises(hfpipe.HfpipeError) as error:
            addresses.fetch(f"{server}/to/{astray}", [server], "here")
        assert error.value.exit_code == 7, str(error.value)
    with pytest.raises(hfpipe.HfpipeError, match="404"):
        addresses.fetch(f"{server}/nothing", [server], "here")
    monkeypatch.setattr(addresses.hub, "is_offline", lambda: True)
    assert addresses.fetch(f"{server}/to/{server}/rows.csv", [server], "here") == found


def test_fault_69_a_name_that_leads_into_a_private_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allowed name whose address is loopback or link-local is refused; the origin itself can be allowed."""
    monkeypatch.setattr(addresses.hub, "is_offline", lambda: False)
    for private in ("127.0.0.1", "169.254.169.254", "10.1.2.3", "::1"):
        monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *args, to=private: [(0, 0, 0, "", (to, 443))])
        with pytest.raises(RefusedError, match="no address of the public network"):
            addresses.fetch("https://data.example.org/x.csv", ["data.example.org"], "here")


def test_fault_70_archives_are_not_opened(train: Callable[..., hfpipe.Run], tmp_path: Path) -> None:
    """A zip or tar is no data file: nothing is unpacked, wherever its names lead and however large it would become."""
    import zipfile

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


def test_fault_72_no_secret_and_no_home_is_written_down(
    train: Callable[..., hfpipe.Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Path
) -> None:
    """Planted in the environment, in the command, in an error and in a warning, neither is in any file of the run."""
    from hfpipe.runs import discretion

    token, key = "hf_" + "AbCdEfGhIj" * 4, "planted-secret-value"
    home = tmp_path / "home" / "someone"
    shutil.copytree(checkpoint, home / "checkpoint")
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(discretion, "_home", lambda: str(home))
    monkeypatch.setattr("sys.argv", ["hfpipe", "finetune", f"--token={token}", f"{home}/recipe.yaml", key])

    def loud(logits: Any, targets: Any) -> Any:
        import logging

        logging.getLogger("transformers").warning("token %s of %s with %s", token, home, key)
        return logits.sum(dim=-1)

    run = train(f"model.checkpoint={home / 'checkpoint'}", loss=loud)
    planted = (token.encode(), key.encode(), str(home).encode())
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in files:
        assert not [one for one in planted if one in file.read_bytes()], file
    assert "token ***" in (run.path / "log.txt").read_text()
    assert run.recipe.model.checkpoint == "~/checkpoint"
    assert hfpipe.load_recipe(run.path / "recipe.yaml").model.checkpoint == "~/checkpoint"


def test_fault_72_innocent_words_stay() -> None:
    """Short values and paths of the environment are no secrets, and a longer folder is not the home."""
    home = str(Path.home())
    os.environ["X_TOKEN"] = "abc"
    try:
        assert discreet("abc and /tmp/x") == "abc and /tmp/x"
    finally:
        del os.environ["X_TOKEN"]
    assert discreet(f"{home}sick") == f"{home}sick"
    assert discreet(f"'{home}/x' and {home}") == "'~/x' and ~/"
    assert discreet("hf_" + "a" * 34) == "***"
