"""The result files that transformers' example scripts write, under their names, for tools that read those."""

from __future__ import annotations

from typing import Any

from hfpipe.runs.store import Run


def write_transformers_files(run: Run, rows: dict[str, int], summary: dict[str, Any]) -> None:
    """Write `all_results.json`, `eval_results.json`, `train_results.json` and `trainer_state.json` from the records.

    Args:
        run: the run, whose records are read.
        rows: rows of the `train` and `evaluation` splits.
        summary: `steps`, `epochs`, `seconds` and `examples_per_second` of the training, `evaluated_step` and `metrics` of
            the result.
    """
    records, recipe = run.records, run.recipe
    steps = [record for record in records if record["type"] == "step"]
    losses = [record["loss"] for record in steps if record["loss"] is not None]  # None in a step that was skipped
    evaluations = [record for record in records if record["type"] == "evaluation"]
    train = {
        "epoch": summary["epochs"],
        "train_loss": sum(losses) / len(losses) if losses else None,
        "train_runtime": summary["seconds"],
        "train_samples": rows["train"],
        "train_samples_per_second": summary["examples_per_second"],
        "train_steps_per_second": summary["steps"] / summary["seconds"],
    }
    evaluation: dict[str, Any] = {}
    final = next((r for r in reversed(evaluations) if r["step"] == summary["evaluated_step"]), None)
    if final is not None:
        evaluation = {"epoch": final["epoch"], "eval_samples": rows["evaluation"], "eval_runtime": final["seconds"]}
        evaluation |= {f"eval_{name}": value for name, value in summary["metrics"].items()}
        run.write_json("eval_results.json", evaluation)
    run.write_json("train_results.json", train)
    run.write_json("all_results.json", {**evaluation, **train})
    history = [
        {
            "epoch": r["epoch"],
            "grad_norm": r["grad_norm"],
            "learning_rate": r["lr"],
            "loss": r["loss"],
            "step": r["step"],
        }
        if r["type"] == "step"
        else {"epoch": r["epoch"], "step": r["step"], **{f"eval_{name}": value for name, value in r["metrics"].items()}}
        for r in records
        if r["type"] in ("step", "evaluation")
    ]
    best = final["metrics"].get(recipe.evaluate.best) if final and recipe.evaluate.best else None
    run.write_json(
        "trainer_state.json",
        {
            "best_metric": best,
            "best_global_step": summary["evaluated_step"] if best is not None else None,
            "epoch": summary["epochs"],
            "global_step": summary["steps"],
            "log_history": history,
            "max_steps": summary["steps"],
            "num_train_epochs": recipe.train.epochs,
            "train_batch_size": recipe.train.batch_size,
        },
    )
