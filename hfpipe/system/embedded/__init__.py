"""What hfpipe brings along: a data set that it makes itself and a tiny checkpoint, for work without a network.

Recipes write `embedded:paraphrases` and `embedded:tiny-bert`. Both functions return a plain folder, so the data and the
checkpoint go through the same loading code as everything else. Importing this module is cheap.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hfpipe.errors import MachineError, ModelError, RecipeError
from hfpipe.system import atomic, manifest
from hfpipe.system.snapshot import digest_of_code

if TYPE_CHECKING:
    from hfpipe.system.embedded.paraphrases import Row

DATASETS = ("paraphrases",)
CHECKPOINTS = ("tiny-bert",)
CHECKPOINT_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

_HERE = Path(__file__).parent


def dataset_folder(name: str) -> Path:
    """The folder of an embedded data set, made on first use.

    It holds one parquet file a split, a `README.md` whose YAML header names them and their features, and a manifest.
    A folder that does not match its manifest is made again.

    Args:
        name: of the data set, without `embedded:`.

    Returns:
        A folder that `datasets.load_dataset` reads. Its name changes whenever the generator's source does.

    Raises:
        RecipeError: there is no data set of that name.
        MachineError: the cache cannot be written.
    """
    if name not in DATASETS:
        raise RecipeError(f"no embedded data set is named {name!r}", allowed=", ".join(DATASETS))
    folder = _cache() / f"{name}-{digest_of_code(_HERE / 'paraphrases.py', Path(__file__))[:16]}"
    if _is_sound(folder):
        return folder
    try:
        with atomic.replaced_folder(folder, keep_if=_is_sound) as staging:
            _write_paraphrases(staging)
            manifest.write(staging)
    except OSError as error:
        raise MachineError(
            f"the embedded data set cannot be written: {error}",
            where=str(folder),
            fix="Free some space, or set HFPIPE_CACHE to a folder that can be written.",
        ) from error
    return folder


def checkpoint_folder(name: str) -> Path:
    """The folder of an embedded checkpoint, inside the installed package.

    Args:
        name: of the checkpoint, without `embedded:`.

    Returns:
        A folder that `from_pretrained` reads, of the model as of the tokenizer.

    Raises:
        RecipeError: there is no checkpoint of that name.
        ModelError: the package was installed without all of its files.
    """
    if name not in CHECKPOINTS:
        raise RecipeError(f"no embedded checkpoint is named {name!r}", allowed=", ".join(CHECKPOINTS))
    folder = _HERE / name
    missing = [file for file in CHECKPOINT_FILES if not (folder / file).is_file()]
    if missing:
        raise ModelError(
            f"the embedded checkpoint lacks {', '.join(missing)}", where=str(folder), fix="Install hfpipe again."
        )
    return folder


def _cache() -> Path:
    """Where hfpipe keeps what it makes: HFPIPE_CACHE, else beside the Hugging Face cache."""
    if own := os.environ.get("HFPIPE_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(shared).expanduser().absolute() / "hfpipe"


def _is_sound(folder: Path) -> bool:
    """Whether every file is there, unchanged, and no other."""
    if manifest.find_corruption(folder) is not None:
        return False
    return {path.name for path in folder.iterdir()} == {*manifest.read(folder), manifest.FILE}


_README = """\
---
configs:
- config_name: default
  data_files:
{data_files}
dataset_info:
  features:
  - name: sentence1
    dtype: string
  - name: sentence2
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': {label_0}
          '1': {label_1}
  - name: idx
    dtype: int32
---

Sentence pairs from hfpipe's own grammar, in the columns of GLUE MRPC. Written by `hfpipe.system.embedded`; any change to these
files is undone at the next use.
"""


def _write_paraphrases(folder: Path) -> None:
    """Write the splits of `paraphrases` as parquet, and the README that describes them."""
    from hfpipe.system.embedded.paraphrases import LABEL_NAMES, rows_by_split

    splits = rows_by_split()
    for name, rows in splits.items():
        _write_parquet(folder / f"{name}.parquet", rows)
    data_files = "\n".join(f"  - split: {name}\n    path: {name}.parquet" for name in splits)
    readme = _README.format(data_files=data_files, label_0=LABEL_NAMES[0], label_1=LABEL_NAMES[1])
    (folder / "README.md").write_text(readme, encoding="utf-8", newline="\n")


def _write_parquet(file: Path, rows: list[Row]) -> None:
    """Write the rows of one split, with the types of GLUE's own parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("sentence1", pa.string()), ("sentence2", pa.string()), ("label", pa.int64()), ("idx", pa.int32())]
    )
    columns = [pa.array(column, type=field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), file)
