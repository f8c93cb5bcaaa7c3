"""`hfpipe doctor`: does this recipe compute what it says on this machine, and is the machine fit for it?

Here is the command's function, and what it says of the machine; what it measures with a recipe is in doctor_probes.py.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hfpipe.errors import HfpipeError
from hfpipe.recipe import Recipe, load_recipe, with_overrides
from hfpipe.runs.store import default_folder
from hfpipe.system import hub, library_logs
from hfpipe.system.machine import bytes_below, translated_errors
from hfpipe.system.text import amount

FREE_BYTES = 10**9  # a run of a base-size checkpoint writes about that much
_MACHINE = 5
_NAMES = {2: "recipe", 3: "data", 4: "checkpoint", 6: "numbers", 7: "checkpoint"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `exit_code` is what the command ends with when it is not ok."""

    name: str
    ok: bool
    detail: str
    exit_code: int = 0

    def line(self) -> str:
        """The check as one line for a person."""
        return f"{'ok' if self.ok else 'problem':<8} {self.name:<16} {self.detail}"


def examine(
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    show: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Look at a recipe on this machine, or at the machine alone.

    Args:
        recipe: a recipe, or what `load_recipe` takes; None for the machine.
        overrides: `dotted.path=value` each.
        show: is given every check as soon as it is known.

    Returns:
        The checks. What keeps the job from being built ends them early, with a check that says why.

    Raises:
        RecipeError: the recipe can't be read.
    """
    found: list[Check] = []
    if recipe is None:
        checks = _environment()
    else:
        read = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        checks = _of_recipe(with_overrides(read, overrides) if overrides else read)
    for check in checks:
        found.append(check)
        show(check)
    return found


def exit_code(checks: Sequence[Check]) -> int:
    """0, or that of the first check that is not ok."""
    return next((check.exit_code for check in checks if not check.ok), 0)


def _of_recipe(recipe: Recipe) -> Iterator[Check]:
    yield _packages()
    notices: list[str] = []
    if any(_is_on_hub(path) for path in (recipe.dataset.path, recipe.model.checkpoint)):
        hub.detect_offline(notices.append)
    for text in notices:
        yield Check("hub", True, text)
    with (
        tempfile.TemporaryDirectory(prefix="hfpipe-doctor-") as folder,
        library_logs.library_logs_to(Path(folder) / "log.txt"),
    ):
        from hfpipe.experiments import doctor_probes
        from hfpipe.training.scale_check import preserved_rng

        try:
            with translated_errors(), preserved_rng():
                for name, ok, detail, code in doctor_probes.measure_all(recipe):
                    yield Check(name, ok, detail, code)
        except HfpipeError as error:
            yield Check(_NAMES.get(error.exit_code, "machine"), False, str(error), error.exit_code)


def _is_on_hub(path: str) -> bool:
    return not hub.is_local(path) and "/" in path and not path.startswith("embedded:")


def _environment() -> Iterator[Check]:
    """What is known of the machine without a recipe."""
    yield Check("python", True, f"{platform.python_version()} on {platform.platform()}")
    packages = _packages()
    yield packages
    try:
        yield from _devices()
    except ImportError as error:
        yield Check("torch", False, f"can't be imported: {error}", _MACHINE)
    notices: list[str] = []
    before = hub.is_offline()
    offline = hub.detect_offline(notices.append)
    text = (
        notices[0]
        if notices
        else "HF_HUB_OFFLINE is set: the local cache only"
        if before and offline
        else "the Hub answers"
    )
    yield Check("hub", True, text)
    yield _cache()
    yield from _disk()


def _packages() -> Check:
    """The installed versions against the floors of hfpipe's own metadata."""
    from packaging.requirements import Requirement

    shown, problems = [], []
    for requirement in map(Requirement, _requirements()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing, {requirement.specifier} is needed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is {version}, {requirement.specifier} is needed")
        if requirement.name in ("torch", "transformers", "datasets", "accelerate", "evaluate"):
            shown.append(f"{requirement.name} {version}")
    if problems:
        return Check("versions", False, f"{'; '.join(problems)}: install these with pip", _MACHINE)
    return Check("versions", True, ", ".join(sorted(shown)))


def _requirements() -> list[str]:
    """What hfpipe needs: from the installed package, or from the checkout that it is run from."""
    try:
        return metadata.requires("hfpipe") or []
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        with open(project, "rb") as file:
            return list(tomllib.load(file)["project"]["dependencies"])


def _devices() -> Iterator[Check]:
    """The devices of torch, and the number format that `precision: auto` takes on each."""
    import torch

    from hfpipe.parts.model.precision import choose

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    yield Check(
        "torch", True, f"{torch.__version__}, {built}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    )
    devices = (
        [torch.device("cuda", index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    if not devices:
        devices = [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]
    for device in devices:
        about = str(device)
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            about = f"{device}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        precision = choose("auto", device, "")
        yield Check("device", True, f"{about}; precision auto is {precision.name}: {precision.why}")
    if torch.version.cuda and devices[0].type == "cpu":
        yield Check(
            "cuda",
            True,
            "torch is built for CUDA and finds no GPU here; where there is one, look at its driver",
        )


def _cache() -> Check:
    """Where the Hugging Face libraries keep what they download, and how much that is."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HOME)
    if not folder.is_dir():
        return Check("cache", True, f"{folder} is not there yet")
    if not os.access(folder, os.W_OK):
        return Check("cache", False, f"{folder} can't be written: set HF_HOME to a folder that can", _MACHINE)
    return Check("cache", True, f"{folder} holds {amount(bytes_below(folder))}")


def _disk() -> Iterator[Check]:
    """The space left where runs and downloads go."""
    from huggingface_hub import constants

    for name, wanted in (("disk for runs", default_folder()), ("disk for cache", Path(constants.HF_HOME))):
        folder = next(parent for parent in (wanted.resolve(), *wanted.resolve().parents) if parent.is_dir())
        free = shutil.disk_usage(folder).free
        enough = free >= FREE_BYTES
        fix = "" if enough else f"; a run of a base-size checkpoint needs about {amount(FREE_BYTES)}"
        yield Check(name, enough, f"{amount(free)} free at {folder}{fix}", _MACHINE)
