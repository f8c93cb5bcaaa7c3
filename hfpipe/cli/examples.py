"""The examples under the help of each command. A test reads each of them as the command line would."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "finetune": (
        "hfpipe finetune reviews.yaml --epochs 5 --lr 3e-5",
        "hfpipe finetune reviews.csv --text review --label stars",
        "hfpipe finetune mrpc train.batch_size=16 evaluate.patience=2",
        "hfpipe finetune mrpc --seeds 5",
        "hfpipe finetune --resume reviews-20261129-104509",
    ),
    "evaluate": (
        "hfpipe evaluate RUN",
        "hfpipe evaluate RUN --split test",
        "hfpipe evaluate ./checkpoint --recipe mrpc evaluate.batch_size=128",
    ),
    "predict": (
        "hfpipe predict RUN new.csv --output labelled.csv",
        "hfpipe predict RUN new.jsonl --keep id",
        "hfpipe predict RUN - < new.jsonl",
    ),
    "glue-zip": ("hfpipe glue-zip glue --output submission.zip",),
    "compare": (
        "hfpipe compare mrpc --vary optimizer.lr=1e-5,5e-5",
        "hfpipe compare mrpc train.epochs=1 --vary engine=trainer,loop",
        "hfpipe compare RUN OTHER",
    ),
    "data": ("hfpipe data mrpc", "hfpipe data reviews.yaml --examples 10"),
    "preprocess": ("hfpipe preprocess mrpc model.max_length=256",),
    "peek": ("hfpipe peek reviews.csv", "hfpipe peek nyu-mll/glue mrpc --split test --rows 3"),
    "push": ("hfpipe push RUN ann/reviews",),
    "doctor": ("hfpipe doctor", "hfpipe doctor mrpc train.accumulate=4"),
    "recipes list": ("hfpipe recipes list",),
    "recipes show": ("hfpipe recipes show mrpc", "hfpipe recipes show mrpc --resolved train.epochs=1"),
    "recipes new": (
        "hfpipe recipes new reviews.csv",
        "hfpipe recipes new pairs.jsonl --text first,second --label same",
    ),
    "recipes copy": ("hfpipe recipes copy mrpc mine.yaml",),
    "recipes validate": ("hfpipe recipes validate mine.yaml", "hfpipe recipes validate mrpc train.epochs=1"),
    "recipes schema": ("hfpipe recipes schema > recipe.schema.json",),
    "runs list": (
        "hfpipe runs list --sort accuracy --limit 5",
        "hfpipe runs list --recipe mrpc --status finished --since 7d",
    ),
    "runs show": ("hfpipe runs show RUN",),
    "runs diff": ("hfpipe runs diff RUN OTHER",),
    "runs report": ("hfpipe runs report RUN",),
    "runs delete": ("hfpipe runs delete RUN OTHER", "hfpipe runs delete RUN --yes"),
    "runs clean": ("hfpipe runs clean --dry-run", "hfpipe runs clean RUN --keep best --yes"),
    "runs reproduce": ("hfpipe runs reproduce RUN",),
    "runs export": ("hfpipe runs export RUN exported",),
}


def examples(command: str) -> str:
    """The examples of a command, as the text below its help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[command])
