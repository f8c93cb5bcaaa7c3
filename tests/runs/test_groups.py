"""Groups on disk: found by name, never mixed up with runs, and refused when they can't be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hfpipe.errors import RecipeError
from hfpipe.recipe import Recipe, load_recipe
from hfpipe.runs import Run, find_run, groups
from hfpipe.runs.groups import Group, check_seeds, find_group, find_run_or_group, is_group, list_groups


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Any recipe."""
    return load_recipe("quickstart")


@pytest.fixture
def group(recipe: Recipe, tmp_path: Path) -> Group:
    """A group of three seeds of which the second is not finished, and the third not begun."""
    made = Group.create(recipe, tmp_path, "colours")
    made.update_metadata(format=1, id="colours", seeds=[3, 5, 8], status="failed", started="2026-01-02")
    Run.create(recipe, made.path, "seed-3").update_metadata(status="finished")
    Run.create(recipe, made.path, "seed-5").update_metadata(status="failed")
    return made


def test_a_group_reads_back_what_it_was_told(group: Group, recipe: Recipe) -> None:
    """Seeds, status, recipe and the finished runs come from the folder alone."""
    again = Group(group.path)
    assert is_group(group.path)
    assert again.seeds == [3, 5, 8]
    assert again.status == "failed"
    assert again.recipe == recipe
    assert list(again.runs) == [3]
    assert again.summary == {}
    assert "colours" in repr(again)


def test_a_group_is_found_by_path_id_and_beginning(group: Group, recipe: Recipe, tmp_path: Path) -> None:
    """Its path, its id and the start of its id name it; a longer id with the same start does not hide it."""
    other = Group.create(recipe, tmp_path, "colours-2")
    other.update_metadata(format=1, id="colours-2", seeds=[1], started="2026-01-03")
    for name in (str(group.path), "colours"):
        assert find_group(name, tmp_path).path == group.path
    assert find_group("colours-", tmp_path).id == "colours-2"
    assert [one.id for one in list_groups(tmp_path)] == ["colours-2", "colours"]
    with pytest.raises(RecipeError, match="is ambiguous: 2 groups start with it"):
        find_group("col", tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'colours'"):
        find_group("colour5", tmp_path)


def test_a_name_is_that_of_a_run_or_of_a_group(group: Group, recipe: Recipe, tmp_path: Path) -> None:
    """Both are found by their names; a beginning that both share is refused."""
    Run.create(recipe, tmp_path, "column").update_metadata(status="finished")
    assert isinstance(find_run_or_group("colou", tmp_path), Group)
    assert isinstance(find_run_or_group("colum", tmp_path), Run)
    assert isinstance(find_run_or_group("column", tmp_path), Run)
    assert isinstance(find_run_or_group(str(group.path), tmp_path), Group)
    assert isinstance(find_run_or_group(str(group.path / "seed-3"), tmp_path), Run)
    with pytest.raises(RecipeError, match="is ambiguous: 2 runs and groups start with it"):
        find_run_or_group("col", tmp_path)
    with pytest.raises(RecipeError, match="no run 'shapes'"):
        find_run_or_group("shapes", tmp_path)


def test_the_runs_inside_a_group_do_not_make_its_name_ambiguous(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where runs of groups are listed as well, the start of a group's id is still the group."""

    class Inside(Run):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.id = f"{path.parent.name}/{path.name}"

    monkeypatch.setattr(
        groups, "list_runs", lambda folder: [Inside(path.parent) for path in folder.glob("*/*/run.json")]
    )
    assert isinstance(find_run_or_group("colou", tmp_path), Group)


def test_a_group_of_another_format_is_refused(group: Group) -> None:
    """A later hfpipe's group.json is not read as if it were this one's."""
    group.update_metadata(format=2)
    assert group.status == "damaged"
    with pytest.raises(RecipeError, match=r"group\.json: the group is written in format 2; allowed: format 1"):
        group.seeds  # noqa: B018


def test_a_damaged_group_hides_no_other(group: Group, recipe: Recipe, tmp_path: Path) -> None:
    """It is listed, last, and its file is named when it is read."""
    Group.create(recipe, tmp_path, "whole").update_metadata(format=1, started="2026-01-01")
    (group.path / "group.json").write_text("{")
    assert [one.id for one in list_groups(tmp_path)] == ["whole", "colours"]
    with pytest.raises(RecipeError, match=r"group\.json: not JSON"):
        group.metadata  # noqa: B018


def test_the_run_of_a_seed_is_deleted_unless_it_is_running(group: Group) -> None:
    """What is left of a seed goes away, one that another process trains does not, and one that never was is no error."""
    group.run(5).update_metadata(status="running", pid=os.getppid())
    with pytest.raises(RecipeError, match=r"'seed-5' is running \(process"):
        group.delete(5)
    group.run(5).update_metadata(status="running", pid=2**22 + 1)
    group.delete(5)
    group.delete(8)
    assert not group.run(5).path.exists()


@pytest.mark.parametrize(
    ("seeds", "told"),
    [([], "no seed"), ([1, -1], "-1 is not a seed"), ([2**32], "is not a seed"), ([4, 4], "4 is given twice")],
)
def test_what_are_no_seeds(seeds: list[int], told: str) -> None:
    """None, one out of range, and one twice are refused in words."""
    with pytest.raises(RecipeError, match=told):
        check_seeds(seeds)


def test_a_group_where_a_run_is_wanted_is_told(group: Group, tmp_path: Path) -> None:
    """The name of a group is called that, with its runs, and not an unclear start of theirs."""
    with pytest.raises(RecipeError, match=r"'colours' is a group of seeds.*allowed: colours/seed-\d, colours/seed-\d"):
        find_run("colours", tmp_path)
    group.run(5).update_metadata(best="f1")
    group.run(5).write_json("metrics.json", {"metrics": {"accuracy": 0.25, "f1": 0.98765}})
    with pytest.raises(RecipeError, match=r"is a group of seeds.*allowed: .*colours/seed-5 \(f1 0\.9877\)"):
        find_run(str(tmp_path / "colours"), tmp_path / "elsewhere")
