"""The scripts a newcomer runs first, with a Python, a pip and a df that fail on request; nothing is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / "scripts" / name for name in ("setup", "quickstart", "test", "check")] + [ROOT / ".ci" / "run"]

# Stands for python3 and for the interpreter of the environment it makes; what it does not play, the real one does.
FAKE_PYTHON = f"""#!/usr/bin/env bash
case "$*" in
    *"-m venv"*) place="${{@: -1}}"; mkdir -p "$place/bin"; cp "$0" "$place/bin/python"; touch "$place/pyvenv.cfg" ;;
    *"-m pip install"*)
        echo "${{@: -1}}" >>"$FAKES/installed"
        printf '%s\\n' "${{PIP_SAYS:-}}"
        if [ -n "${{PIP_SLEEPS:-}}" ]; then touch "$FAKES/sleeping"; sleep "$PIP_SLEEPS"; fi
        if [ "${{PIP_CODE:-0}}" -eq 0 ]; then
            printf '#!/bin/sh\\necho hfpipe "$@"\\n' >"$(dirname "$0")/hfpipe"; chmod +x "$(dirname "$0")/hfpipe"
        fi
        exit "${{PIP_CODE:-0}}" ;;
    *"-m pip --version"*) ;;
    *"-m pip config"*) exit 1 ;;
    *"-m pytest"*) echo pytest "${{@:3}}" ;;
    *"import venv, ensurepip"*) exit "${{VENV_CODE:-0}}" ;;
    *importlib.util*) echo "${{TORN:-}}" ;;
    *) exec {sys.executable} "$@" ;;
esac
"""


@dataclass
class Checkout:
    """A copy of what the scripts need, with fakes in front of PATH."""

    root: Path
    fakes: Path
    environment: dict[str, str] = field(default_factory=dict)

    def fake(self, name: str, text: str) -> None:
        """Put an executable in front of PATH."""
        (self.fakes / name).write_text(text)
        (self.fakes / name).chmod(0o755)

    def disk(self, free_mb: int) -> None:
        """Make df report so much free space everywhere."""
        self.fake("df", f"#!/bin/sh\necho header\necho fs 1 1 {free_mb * 1024} 1% /\n")

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a script of the checkout."""
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
        return subprocess.Popen(
            [str(self.root / command[0]), *command[1:]],
            cwd=self.root,
            env={
                **kept,
                "PATH": f"{self.fakes}:/usr/bin:/bin",
                "FAKES": str(self.fakes),
                **self.environment,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the checkout to its end."""
        process = self.start(*command, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/setup."""
        return self.run("scripts/setup", *arguments, **environment)

    @property
    def installed(self) -> list[str]:
        """What pip was asked to install, call by call."""
        calls = self.fakes / "installed"
        return calls.read_text().split() if calls.exists() else []

    @property
    def venv(self) -> Path:
        """The environment's place."""
        return self.root / ".venv"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout with a space in its path, a working Python and a roomy disk."""
    root, fakes = tmp_path / "a checkout", tmp_path / "fakes"
    (root / "scripts").mkdir(parents=True)
    fakes.mkdir()
    for script in SCRIPTS:
        (root / script.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(script, root / script.relative_to(ROOT))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    made = Checkout(root, fakes)
    made.fake("python3", FAKE_PYTHON)
    made.disk(free_mb=100_000)
    return made


def one_paragraph(result: subprocess.CompletedProcess[str]) -> str:
    """The last line of standard error, which holds the whole message."""
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_runnable(script: Path) -> None:
    """Each script is executable and parses."""
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_second_setup_does_nothing(checkout: Checkout) -> None:
    """A current environment is left alone: no pip, no python3, not a byte written."""
    first = checkout.setup()
    assert first.returncode == 0, first.stderr
    assert checkout.installed == [".[tokenizers]"]
    checkout.fake("python3", "#!/bin/sh\necho python3 was called >&2\nexit 1\n")
    before = {path: path.stat().st_mtime_ns for path in checkout.venv.rglob("*")}
    second = checkout.setup()
    assert (second.returncode, second.stdout) == (0, "")
    assert second.stderr == f"setup: {checkout.venv} is current.\n"
    assert checkout.installed == [".[tokenizers]"]
    assert {path: path.stat().st_mtime_ns for path in checkout.venv.rglob("*")} == before


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed_in_place(checkout: Checkout, name: str) -> None:
    """A changed list of packages calls pip again, into the environment that is there."""
    checkout.setup()
    (checkout.venv / "sentinel").touch()
    with (checkout.root / name).open("a") as file:
        file.write("# changed\n")
    assert checkout.setup().returncode == 0
    assert checkout.installed == [".[tokenizers]", ".[tokenizers]"]
    assert (checkout.venv / "sentinel").exists()
    assert "is current" in checkout.setup().stderr


def test_dev_is_added_and_stays(checkout: Checkout) -> None:
    """--dev adds its extras to a plain environment, and a later plain set-up neither removes nor forgets them."""
    checkout.setup()
    checkout.setup("--dev")
    assert checkout.installed == [".[tokenizers]", ".[dev]"]
    assert "is current" in checkout.setup("--dev").stderr
    assert "is current" in checkout.setup().stderr
    with (checkout.root / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    checkout.setup()
    assert checkout.installed == [".[tokenizers]", ".[dev]", ".[dev]"]


def test_moved_checkout_is_made_anew(checkout: Checkout) -> None:
    """An environment full of paths that no longer exist is not taken for current."""
    checkout.setup()
    (checkout.venv / "sentinel").touch()
    checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    assert checkout.setup().returncode == 0
    assert not (checkout.venv / "sentinel").exists()
    assert checkout.installed == [".[tokenizers]", ".[tokenizers]"]


def test_another_python_is_made_anew(checkout: Checkout) -> None:
    """PYTHON= naming another version than the environment's rebuilds it; the same version does not."""
    checkout.setup()
    same = checkout.setup(PYTHON=sys.executable)
    assert "is current" in same.stderr
    checkout.fake(
        "newer", f'#!/bin/sh\ncase "$*" in *print*) echo 3.99;; *) exec {checkout.fakes}/python3 "$@";; esac\n'
    )
    (checkout.venv / "sentinel").touch()
    assert checkout.setup(PYTHON="newer").returncode == 0
    assert not (checkout.venv / "sentinel").exists()


@pytest.mark.parametrize("version", ["2.7", "3.10"])
def test_old_python(checkout: Checkout, version: str) -> None:
    """Too old a Python ends at once, saying which was found and which one on PATH would do."""
    checkout.fake("python3", f"#!/bin/sh\necho {version}\n")
    checkout.fake("python3.14", "#!/bin/sh\necho 3.14\n")
    result = checkout.setup()
    message = one_paragraph(result)
    assert result.returncode == 5
    assert f"is Python {version}; hfpipe needs 3.11 or later" in message
    assert "PYTHON=python3.14" in message
    assert not checkout.venv.exists()


def test_no_python(checkout: Checkout) -> None:
    """A PYTHON that is not there is named."""
    result = checkout.setup(PYTHON="python9")
    assert result.returncode == 5
    assert "there is no working python9" in one_paragraph(result)


def test_python_without_venv(checkout: Checkout) -> None:
    """A Python without its venv module ends at once with the package to install."""
    result = checkout.setup(VENV_CODE="1")
    assert result.returncode == 5
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"apt install python{version}-venv" in one_paragraph(result)
    assert not checkout.venv.exists()


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (
            "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError(': "
            "Failed to establish a new connection: [Errno -2] Name or service not known')': /simple/hatchling/\n"
            "ERROR: No matching distribution found for hatchling>=1.27",
            "Name or service not known",
        ),
        (
            "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'ProxyError('Cannot connect "
            "to proxy.', OSError('Tunnel connection failed: 403 Forbidden'))': /simple/hatchling/",
            "Tunnel connection failed: 403",
        ),
        (
            "ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='x', port=443): Max retries "
            "exceeded with url: /torch.whl (Caused by ReadTimeoutError('Read timed out.'))",
            "timed out",
        ),
    ],
)
def test_unreachable_registry(checkout: Checkout, says: str, reason: str) -> None:
    """A registry that can't be reached is told with its address (no password), the reason, the cure and the log."""
    result = checkout.setup(PIP_CODE="1", PIP_SAYS=says, PIP_INDEX_URL="https://me:secret@mirror.example/simple")
    message = one_paragraph(result)
    assert result.returncode == 5
    assert f"pip cannot reach the package registry https://mirror.example/simple ({reason})" in message
    assert "secret" not in result.stderr
    assert "PIP_INDEX_URL=" in message
    assert "HTTPS_PROXY=" in message
    assert f"{checkout.venv}/setup.log" in message
    assert says in (checkout.venv / "setup.log").read_text()


def test_retry_that_succeeded_is_not_blamed(checkout: Checkout) -> None:
    """A package that the registry lacks is told as such, though one connection was tried twice."""
    says = (
        "WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by 'ReadTimeoutError: Read timed "
        "out': /simple/rich/\nERROR: No matching distribution found for torch==2.13.*"
    ).replace("ReadTimeoutError: ", "")
    result = checkout.setup(PIP_CODE="1", PIP_SAYS=says)
    assert result.returncode == 5
    assert "https://pypi.org/simple has no torch==2.13.* for this Python" in one_paragraph(result)


def test_any_other_failure_names_pips_own_error(checkout: Checkout) -> None:
    """What the script doesn't know is not guessed at: pip's last error and the log are shown."""
    result = checkout.setup(PIP_CODE="1", PIP_SAYS="ERROR: ResolutionImpossible: see the help")
    assert result.returncode == 5
    assert "the installation failed: ERROR: ResolutionImpossible: see the help" in one_paragraph(result)


def test_disk_too_small(checkout: Checkout) -> None:
    """Too little space is found before anything is made, with both figures."""
    checkout.disk(free_mb=900)
    result = checkout.setup()
    assert result.returncode == 5
    assert "has 900 MB of free disk space" in one_paragraph(result)
    assert "about 2500 MB" in one_paragraph(result)
    assert not checkout.venv.exists()
    assert checkout.installed == []


def test_disk_full_on_the_way(checkout: Checkout) -> None:
    """A disk that fills up during the installation is told as that, not as a failure of pip."""
    says = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    result = checkout.setup(PIP_CODE="1", PIP_SAYS=says)
    assert result.returncode == 5
    assert "the disk is full" in one_paragraph(result)
    assert "HFPIPE_VENV=" in one_paragraph(result)


def test_failed_setup_is_made_anew(checkout: Checkout) -> None:
    """What a failed installation left is neither taken for current nor built upon."""
    checkout.setup(PIP_CODE="1")
    (checkout.venv / "sentinel").touch()
    result = checkout.setup()
    assert result.returncode == 0, result.stderr
    assert "was broken off: making it anew" in result.stderr
    assert not (checkout.venv / "sentinel").exists()
    assert "is current" in checkout.setup().stderr


def test_broken_off_update_is_not_current(checkout: Checkout) -> None:
    """After a failed update the mark of the earlier success counts no longer, even if its requirements come back."""
    checkout.setup()
    constraints = checkout.root / "constraints.txt"
    before = constraints.read_text()
    constraints.write_text(f"{before}# changed\n")
    assert checkout.setup(PIP_CODE="1").returncode == 5
    constraints.write_text(before)
    assert "was broken off: making it anew" in checkout.setup().stderr


def killed_while_pip_works(checkout: Checkout, number: signal.Signals) -> int:
    """Kill a set-up in the middle of pip; its exit code."""
    ignored = signal.getsignal(signal.SIGHUP)  # as under nohup, which what is started here would inherit
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        process = checkout.start("scripts/setup", PIP_SLEEPS="1.5")
    finally:
        signal.signal(signal.SIGHUP, ignored)
    deadline = time.monotonic() + 30
    while not (checkout.fakes / "sleeping").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_stopped_setup_is_made_anew(checkout: Checkout, number: signal.Signals) -> None:
    """A set-up stopped while pip works takes pip with it, and the next one makes the environment anew."""
    assert killed_while_pip_works(checkout, number) == 128 + number
    result = checkout.setup()
    assert result.returncode == 0, result.stderr
    assert "was broken off: making it anew" in result.stderr


def test_killed_setup_is_made_anew_once_its_pip_is_gone(checkout: Checkout) -> None:
    """A pip that outlives its killed set-up is waited for, and what it leaves is not trusted."""
    assert killed_while_pip_works(checkout, signal.SIGKILL) == -signal.SIGKILL
    refused = checkout.setup()
    assert refused.returncode == 5
    assert "is at work" in one_paragraph(refused)
    deadline = time.monotonic() + 30
    while (result := checkout.setup()).returncode == 5:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert result.returncode == 0, result.stderr
    assert "was broken off: making it anew" in result.stderr


def test_closed_pipe_takes_pip_with_it(checkout: Checkout) -> None:
    """`./scripts/setup 2>&1 | head -1` leaves no pip behind that would go on writing."""
    process = checkout.start("scripts/setup", PIP_SLEEPS="30")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    process.wait(timeout=30)
    process.stdout.close()
    assert process.returncode != 0
    mark = checkout.venv / "hfpipe-setup-unfinished"
    for number in mark.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)


def test_torn_packages_are_not_trusted(checkout: Checkout) -> None:
    """A package that pip believes to be there but Python can't find ends the set-up, and the next begins anew."""
    result = checkout.setup(TORN="torch")
    assert result.returncode == 5
    assert "lacks torch" in one_paragraph(result)
    assert "making it anew" in checkout.setup().stderr


def test_folder_without_interpreter_is_made_anew(checkout: Checkout) -> None:
    """A .venv of unknown origin that doesn't work is replaced."""
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "python").symlink_to("/nowhere/python3")
    result = checkout.setup()
    assert result.returncode == 0, result.stderr
    assert "is not a working environment: making it anew" in result.stderr


def test_dead_interpreter_is_made_anew(checkout: Checkout) -> None:
    """A finished environment whose Python has since been removed is not current, whatever its mark says."""
    checkout.setup()
    (checkout.venv / "bin" / "python").unlink()
    (checkout.venv / "bin" / "python").symlink_to("/nowhere/python3")
    assert checkout.setup().returncode == 0
    assert checkout.installed == [".[tokenizers]", ".[tokenizers]"]
    assert "is current" in checkout.setup().stderr


def test_other_peoples_folder_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    """HFPIPE_VENV naming a folder with something in it is refused, and nothing in it is touched."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("1")
    result = checkout.setup(HFPIPE_VENV=str(tmp_path / "thesis"))
    assert result.returncode == 5
    assert "is not empty and was not made by this script" in one_paragraph(result)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter"]


def test_another_place(checkout: Checkout, tmp_path: Path) -> None:
    """HFPIPE_VENV moves the environment for set-up and for the commands after it."""
    place = str(tmp_path / "another place")
    assert checkout.setup(HFPIPE_VENV=place).returncode == 0
    assert not checkout.venv.exists()
    result = checkout.run("scripts/quickstart", HFPIPE_VENV=place)
    assert (result.returncode, result.stdout) == (0, "hfpipe finetune recipes/quickstart.yaml\n")


def test_two_setups_at_once(checkout: Checkout) -> None:
    """A second set-up doesn't tear down what a running one builds."""
    checkout.setup(PIP_CODE="1")
    (checkout.venv / "hfpipe-setup-unfinished").write_text(f"{os.getpid()}\n")
    (checkout.venv / "sentinel").touch()
    result = checkout.setup()
    assert result.returncode == 5
    assert f"another set-up (process {os.getpid()}) is at work" in one_paragraph(result)
    assert (checkout.venv / "sentinel").exists()


def test_unknown_argument(checkout: Checkout) -> None:
    """An unknown argument is a usage error, not ignored."""
    result = checkout.setup("--develop")
    assert result.returncode == 2
    assert "unknown argument --develop; allowed: --dev" in one_paragraph(result)


def test_quickstart_hands_its_arguments_on(checkout: Checkout) -> None:
    """The quickstart sets up and then is `hfpipe finetune` of its recipe; a failed set-up ends it."""
    failed = checkout.run("scripts/quickstart", PIP_CODE="1")
    assert (failed.returncode, failed.stdout) == (5, "")
    result = checkout.run("scripts/quickstart", "train.epochs=1", "name=a b")
    assert (result.returncode, result.stdout) == (
        0,
        "hfpipe finetune recipes/quickstart.yaml train.epochs=1 name=a b\n",
    )


def test_test_script_sets_up_once_and_hands_its_arguments_on(checkout: Checkout) -> None:
    """scripts/test installs the development extras only when they are missing, and passes on what pytest takes."""
    for _ in range(2):
        result = checkout.run("scripts/test", "-k", "a and b")
        assert (result.returncode, result.stdout) == (0, "pytest -n 2 --dist worksteal -k a and b\n")
    assert checkout.installed == [".[dev]"]


def test_ci_says_that_it_leaves_out_the_real_data(checkout: Checkout) -> None:
    """Where the shared folder is missing, CI runs the rest and says plainly what it left out."""
    assert checkout.setup("--dev").returncode == 0
    for name in ("ruff", "mypy"):
        shutil.copy(checkout.venv / "bin" / "hfpipe", checkout.venv / "bin" / name)
    result = checkout.run(".ci/run", CI="true")
    assert result.returncode == 0, result.stderr
    assert "tests on real data are left out" in result.stderr
    assert "pytest -n 2" in result.stdout
