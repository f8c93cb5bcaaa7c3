"""hfpipe push: what is sent, to whom it can be seen, and what is refused, against a server of our own that plays the Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

import hfpipe
from hfpipe.errors import MachineError, ModelError, RecipeError, RefusedError
from hfpipe.runs import Run
from hfpipe.runs.evaluations import write_evaluation
from hfpipe.sharing.model_card import PLACE
from hfpipe.sharing.push import push, uploads

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "t" * 34
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of local data with a small model folder, as far as a push looks at it."""
    fields = {"name": "tiny", "dataset": {"path": "/home/someone/pairs"}, "task": {"text": ["a"]},
              "model": {"checkpoint": "/home/someone/bert"}}  # fmt: skip
    made = Run.create(hfpipe.load_recipe(fields), tmp_path / "runs", "one")
    (made.path / "model").mkdir()
    (made.path / "model" / "model.safetensors").write_bytes(b"\x80\x00\x00\x00\x00\x00\x00\x00{}" + bytes(range(256)))
    for name, text in (("config.json", "{}"), ("tokenizer.json", "{}"), ("README.md", f"# tiny\n\n{PLACE}\n")):
        (made.path / "model" / name).write_text(text, encoding="utf-8")
    made.write_json("metrics.json", {"split": "validation", "metrics": {"accuracy": 0.9}, "examples": 21})
    document = {"target": str(made.path), "split": "validation", "overrides": ["dataset.path=/home/someone/more"]}
    write_evaluation(made, "validation", document, [{"id": 0, "said": 1, "right": 1}])
    made.append({"type": "notice", "text": "from /home/someone"})
    from hfpipe.system import manifest

    made.update_metadata(
        id="one", status="finished", model=manifest.digests(made.path / "model"), command=["/home/someone/x"]
    )
    return made


SENT = [
    "README.md",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "recipe.yaml",
    "metrics.json",
    "evaluations/validation.json",
]


def contents(run: Run) -> dict[str, bytes]:
    """What would be sent, by name."""
    return {
        one.name: one.content if isinstance(one.content, bytes) else one.content.read_bytes()
        for one in uploads(run, "ann/tiny")
    }


def test_what_is_sent(run: Run) -> None:
    """Model, card, recipe and figures; no records, no examples, no run.json, and no path of this machine in any."""
    found = contents(run)
    assert list(found) == SENT
    whole = b"".join(found.values())
    assert b"/home/someone" not in whole
    assert str(run.path).encode() not in whole
    assert b"path: .../pairs" in found["recipe.yaml"]
    assert json.loads(found["evaluations/validation.json"])["target"] == "ann/tiny"
    assert b'checkpoint = "ann/tiny"' in found["README.md"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("optimizer.pt", b"x"),
        ("pytorch_model.bin", b"x"),
        ("data", b"\x80\x04rest"),
        ("weights.json", b"PK\x03\x04rest"),
    ],
)
def test_a_pickle_is_refused(run: Run, name: str, content: bytes) -> None:
    """By its ending and by its first bytes, whatever it is called."""
    (run.path / "model" / name).write_bytes(content)
    with pytest.raises(RefusedError, match=f"{name} may be a pickle"):
        uploads(run, "ann/tiny")


def test_links_and_folders_are_refused(run: Run, tmp_path: Path) -> None:
    """A link in model/ could send any file of this machine."""
    (tmp_path / "secret.txt").write_text("x", encoding="utf-8")
    (run.path / "model" / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(RefusedError, match=r"notes.txt is a link"):
        uploads(run, "ann/tiny")


@pytest.mark.parametrize("secret", [f"token: {TOKEN}", "{home}/data", "{own}"])
def test_tokens_and_the_home_folder_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    """Whoever wrote them into a file of the model: a token by its form or its value, and the home folder."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("HF_TOKEN", "own-secret-of-another-form")
    text = secret.replace("{home}", "/home/ann").replace("{own}", "own-secret-of-another-form")
    (run.path / "model" / "notes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(RefusedError, match=r"notes\.txt"):
        uploads(run, "ann/tiny")


@pytest.mark.parametrize("repo", ["tiny", "ann/", "ann/ti ny", "../x/y", "ann/tiny/more", "https://hf.co/ann/tiny"])
def test_a_name_that_is_no_repository(run: Run, repo: str) -> None:
    """Without an owner, or with signs that none has, it is refused before anything is asked."""
    with pytest.raises(RecipeError, match="is no repository"):
        uploads(run, repo)


def test_only_what_was_measured_is_sent(run: Run) -> None:
    """Changed weights are refused, a changed card is not; and a run without its end has nothing to send."""
    (run.path / "model" / "README.md").write_text("mine", encoding="utf-8")
    uploads(run, "ann/tiny")
    (run.path / "model" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"model.safetensors has changed"):
        uploads(run, "ann/tiny")
    run.update_metadata(status="failed")
    with pytest.raises(ModelError, match="is failed and has no finished model"):
        uploads(run, "ann/tiny")


class FakeApi:
    """The few calls that a push makes; `private` of the repository, None where it is not there."""

    def __init__(self, private: bool | None) -> None:
        self.private, self.calls = private, list[str]()

    def repo_info(self, repo: str) -> Any:
        self.calls.append("repo_info")
        if self.private is None:
            raise huggingface_hub.errors.RepositoryNotFoundError("404", response=response(404))
        return SimpleNamespace(private=self.private)

    def create_repo(self, repo: str, *, private: bool) -> None:
        self.calls.append(f"create_repo private={private}")
        self.private = private

    def create_branch(self, repo: str, *, branch: str, exist_ok: bool) -> None:
        self.calls.append(f"create_branch {branch}")

    def create_commit(self, repo: str, operations: list[Any], *, commit_message: str, revision: str | None) -> Any:
        self.calls.append(f"create_commit {len(operations)} {revision}")
        return SimpleNamespace(commit_url=f"https://hub/{repo}/commit/{COMMIT}", oid=COMMIT)


def response(status: int) -> Any:
    """An answer of a server, as huggingface_hub's errors hold one."""
    from huggingface_hub.errors import HfHubHTTPError

    module = sys.modules[
        next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError").__module__.split(".")[0]
    ]
    return module.Response(status, request=module.Request("GET", "https://hub/api"))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeApi]:
    """Puts a fake in the place of HfApi, with a token and a network."""

    def install(private: bool | None, **failing: BaseException) -> FakeApi:
        fake = FakeApi(private)

        def fail(error: BaseException) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                raise error

            return call

        for name, error in failing.items():
            setattr(fake, name, fail(error))
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda **options: fake)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
        monkeypatch.setattr("hfpipe.system.hub.detect_offline", lambda notice: False)
        return fake

    return install


@pytest.mark.parametrize(
    ("private", "public", "made", "ends"),
    [(None, False, "create_repo private=True", True), (None, True, "create_repo private=False", False), (True, False, None, True),
     (True, True, None, True), (False, True, None, False)],
)  # fmt: skip
def test_who_can_see_it(
    api: Callable[..., FakeApi], run: Run, private: bool | None, public: bool, made: str | None, ends: bool
) -> None:
    """A new repository is private unless asked; one that is there keeps what it is, and that is said."""
    fake, said = api(private), list[str]()
    done = push(run, "ann/tiny", public=public, notice=said.append)
    assert done.private is ends
    assert [call for call in fake.calls if call.startswith("create_repo")] == ([made] if made else [])
    assert fake.calls[-1] == f"create_commit {len(SENT)} None"
    assert said[0] == (f"made ann/tiny, {'private' if ends else 'public'}" if made else
                       f"ann/tiny is there already, {'private' if ends else 'public'}, and stays so")  # fmt: skip


def test_a_public_repository_is_refused(api: Callable[..., FakeApi], run: Run) -> None:
    """Without --public nothing is sent to a place that everybody sees, also not where the Hub made a new one public."""
    fake = api(False)
    with pytest.raises(RefusedError, match="is public"):
        push(run, "ann/tiny")
    assert fake.calls == ["repo_info"]
    fake = api(None)
    fake.create_repo = lambda repo, private: setattr(fake, "private", False)  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="is public"):
        push(run, "ann/tiny")
    assert "create_commit" not in str(fake.calls)


def test_a_branch(api: Callable[..., FakeApi], run: Run) -> None:
    """It is made before the commit, which goes there."""
    fake = api(True)
    push(run, "ann/tiny", revision="seed-2")
    assert fake.calls[-2:] == ["create_branch seed-2", f"create_commit {len(SENT)} seed-2"]


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "The token is not accepted"), (403, "may not write there"), (409, "Somebody made it"), (500, "Try again")],
)
def test_the_hubs_refusals_in_words(api: Callable[..., FakeApi], run: Run, status: int, told: str) -> None:
    """Exit 5 with what to do; a token in the Hub's answer is not repeated."""
    error = huggingface_hub.errors.HfHubHTTPError(f"{status} for {TOKEN}", response=response(status))
    api(None, create_repo=error)
    with pytest.raises(MachineError, match=told) as caught:
        push(run, "ann/tiny")
    assert TOKEN not in str(caught.value)


def test_a_broken_connection(api: Callable[..., FakeApi], run: Run) -> None:
    """In the middle of the commit: exit 5, and that nothing is there."""
    api(True, create_commit=ConnectionResetError(104, "reset"))
    with pytest.raises(MachineError, match="the way to the Hub broke"):
        push(run, "ann/tiny")


def test_without_network_or_token(api: Callable[..., FakeApi], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is exit 5 with what to do, and nothing is asked of the Hub."""
    fake = api(True)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(MachineError, match=r"no token.*hf auth login"):
        push(run, "ann/tiny")
    monkeypatch.setattr("hfpipe.system.hub.detect_offline", lambda notice: True)
    with pytest.raises(MachineError, match="can't be reached, so nothing was sent"):
        push(run, "ann/tiny")
    assert fake.calls == []


def test_it_asks_first(api: Callable[..., FakeApi], run: Run, hfpipe_command: Callable[..., Any]) -> None:
    """The files with their sizes are shown; where nobody can answer, --yes is needed; then the address is the result."""
    fake = api(None)
    refused = hfpipe_command("push", run.path, "ann/tiny")
    assert refused.code == 2
    assert "not a terminal, so nothing can be confirmed; pass --yes" in refused.err
    assert all(name in refused.err for name in SENT)
    assert fake.calls == []
    done = hfpipe_command("push", run.path, "ann/tiny", "--yes")
    assert (done.code, done.out) == (0, f"https://hub/ann/tiny/commit/{COMMIT}\n")
    assert "private" in done.err
    told = hfpipe_command("push", run.path, "ann/tiny", "--yes", "--json", "--revision", "b").json
    assert (told["repo"], told["private"], sorted(told["files"])) == ("ann/tiny", True, sorted(SENT))


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 130)])
def test_the_answer_counts(
    api: Callable[..., FakeApi],
    run: Run,
    hfpipe_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    answer: bool,
    code: int,
) -> None:
    """On a terminal, yes sends and no leaves everything as it was."""
    import typer

    fake = api(None)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))

    def confirm(text: str, *, abort: bool, err: bool) -> bool:
        if not answer:
            raise typer.Abort
        return True

    monkeypatch.setattr(typer, "confirm", confirm)
    assert hfpipe_command("push", run.path, "ann/tiny").code == code
    assert bool(fake.calls) is answer


class Hub(ThreadingHTTPServer):
    """A server with the endpoints that a push uses; safetensors come by LFS, everything else in the commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.private: bool | None = None
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def reply(self, content: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.reply({})

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.private is None:
            self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        else:
            self.reply({"id": "ann/tiny", "_id": "1", "private": self.server.private, "siblings": [], "sha": COMMIT})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[hashlib.sha256(data).hexdigest()] = data
        self.reply({})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(f"POST {self.path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        hub = self.server
        if self.path == "/api/repos/create":
            hub.private = json.loads(data).get("visibility") == "private" or bool(json.loads(data).get("private"))
            self.reply({"url": f"{hub.address}/ann/tiny"})
        elif self.path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(data)["files"]
            ]
            self.reply({"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    "actions": {"upload": {"href": f"{hub.address}/put/{one['oid']}"}},
                }
                for one in json.loads(data)["objects"]
            ]
            self.reply({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")
        elif "/commit/" in self.path:
            for line in map(json.loads, data.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.objects[value["oid"]]
            self.reply({"commitUrl": f"{hub.address}/ann/tiny/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.reply({"error": self.path}, 500)


@pytest.fixture
def server() -> Iterator[Hub]:
    """The server, in a thread."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


def test_the_real_client_against_a_server(run: Run, server: Hub) -> None:
    """The command in a process of its own: a private repository is made, and every byte arrives under its name."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": server.address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0",
                   "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    command = [sys.executable, "-m", "hfpipe.cli.app", "push", str(run.path), "ann/tiny", "--yes", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["url"] == f"{server.address}/ann/tiny/commit/{COMMIT}"
    assert server.private is True
    assert server.files == contents(run)
    assert server.tokens <= {f"Bearer {TOKEN}", None}
    assert TOKEN not in done.stdout + done.stderr
    server.private, server.asked = False, []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == RefusedError.exit_code
    assert "is public" in done.stderr
    assert not [one for one in server.asked if one.startswith("POST")]
