"""Without a network: not one connection when told so, one question when not, and the cache for everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# Runs in a process of its own: every way to a host is watched before the first import, and refused.
PROGRAM = """
import json, socket, sys, time

attempts = []

def refuse(name):
    def call(*arguments, **options):
        target = next((part for part in arguments if isinstance(part, (str, bytes, tuple))), None)
        if name != "connect" or isinstance(target, tuple):  # a name of a file is a socket on this machine
            attempts.append([name, repr(target)])
            raise ConnectionRefusedError(111, "no network in this test")
        return None
    return call

socket.socket.connect = refuse("connect")
socket.socket.connect_ex = refuse("connect")
socket.socket.sendto = refuse("sendto")
socket.getaddrinfo = refuse("getaddrinfo")

fields, runs = json.loads(sys.argv[1])
import hfpipe

class Heard:
    lines = []
    def notice(self, text): self.lines.append(text)
    def start(self, num_steps): pass
    def record(self, record): pass
    def close(self): pass

found = {}
for engine in ("trainer", "loop"):
    run = hfpipe.finetune(fields, engine=engine, runs_dir=runs, name=engine, display=Heard())
    found[engine] = run.metrics
found["again"] = hfpipe.evaluate(run, display=Heard()).metrics
found["identity"] = run.metadata["identity"]
try:
    hfpipe.finetune(fields, overrides=["model.checkpoint=bert-base-cased"], runs_dir=runs)
except hfpipe.HfpipeError as error:
    found["missing"] = [error.exit_code, str(error)]
print(json.dumps({"attempts": attempts, "said": Heard.lines, **found}))
"""


@pytest.fixture
def trained(tmp_path: Path, tiny_checkpoint: Path, pairs_folder: Path, recipe_fields: dict[str, Any]) -> Any:
    """Trains from a Hub cache in such a process, with these variables; gives what it found."""
    for kind, source in (("models--org--model", tiny_checkpoint), ("datasets--org--data", pairs_folder)):
        snapshot = tmp_path / "home" / "hub" / kind / "snapshots" / COMMIT
        snapshot.parent.mkdir(parents=True)
        snapshot.symlink_to(source, target_is_directory=True)
        (tmp_path / "home" / "hub" / kind / "refs").mkdir()
        (tmp_path / "home" / "hub" / kind / "refs" / "main").write_text(COMMIT)
    sections = {"dataset": {"path": "org/data"}, "model": {"checkpoint": "org/model"}}
    fields = {**recipe_fields, **sections, "train": {"max_steps": 2, "batch_size": 8, "precision": "fp32"}}

    def run(**variables: str) -> dict[str, Any]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        environment = {**inherited, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home"), **variables}
        given = json.dumps([fields, str(tmp_path / "runs")])
        command = [sys.executable, "-c", PROGRAM, given]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_offline_means_not_one_connection(trained: Any) -> None:
    """HF_HUB_OFFLINE=1: both engines train and evaluate from the cache, and no host is looked up or called."""
    found = trained(HF_HUB_OFFLINE="1")
    assert found["attempts"] == []
    assert not any("can't be reached" in line for line in found["said"])
    assert found["again"] == found["loop"] == found["trainer"]
    assert found["identity"]["dataset"]["commit"] == found["identity"]["checkpoint"]["commit"] == COMMIT
    code, told = found["missing"]
    assert code == 4
    assert "`hf download bert-base-cased`" in told
    assert "`hfpipe finetune quickstart`" in told


def test_no_network_is_found_out_once(trained: Any) -> None:
    """With the variable unset and nobody answering: one attempt, said once, and on from the cache without retries."""
    found = trained(HF_ENDPOINT="http://127.0.0.1:9")
    assert len(found["attempts"]) == 1, found["attempts"]
    said = [line for line in found["said"] if "can't be reached" in line]
    assert len(said) == 1
    assert "http://127.0.0.1:9 can't be reached" in said[0]
    assert "going on from the local cache" in said[0]
    assert found["again"] == found["loop"]
    assert found["missing"][0] == 4


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({}, False),
        ({"model": {"checkpoint": "bert-base-cased"}}, True),
        ({"model": {"checkpoint": "org/model"}}, True),
        ({"dataset": {"path": "org/data"}}, True),
        ({"dataset": {"path": "imdb"}}, True),
        ({"dataset": {"path": "embedded:paraphrases"}, "model": {"checkpoint": "embedded:tiny-bert"}}, False),
        ({"dataset": {"path": "csv", "data_files": "a.csv"}}, False),
        ({"evaluate": {"metrics": ["evaluate:bleu"]}}, True),
    ],
)
def test_the_hub_is_asked_only_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], asks: bool
) -> None:
    """Local and embedded parts and files ask nobody; any id of the Hub, with or without a slash, does."""
    from hfpipe.recipe import load_recipe
    from hfpipe.runs.targets import reach_hub
    from hfpipe.system import hub
    from hfpipe.system.display import Silent

    asked: list[int] = []
    monkeypatch.setattr(hub, "detect_offline", lambda notice: asked.append(1))
    least = {"dataset": {"path": "./d"}, "task": {"text": "t"}, "model": {"checkpoint": "./m"}}
    reach_hub(load_recipe({**least, **fields}), Silent())
    assert bool(asked) is asks
