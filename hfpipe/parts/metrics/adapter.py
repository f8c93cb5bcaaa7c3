"""A metric of hfpipe's as an `evaluate.Metric`, for code that asks for one; hfpipe itself needs none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfpipe.parts.metrics.arrays import paired_arrays
from hfpipe.parts.metrics.load import load_metric

if TYPE_CHECKING:
    import evaluate


def as_evaluate_metric(name: str, **arguments: Any) -> evaluate.Metric:
    """A metric of the catalog with all that `evaluate.Metric` has: `compute`, `add`, `add_batch`, `evaluate.combine`.

    `evaluate` would keep the examples in a locked Arrow file in the user's cache, and turn 0.7 into class 0 on the way;
    this one keeps them in memory as they are. The scores have the names that `evaluate` gives them: a macro F1 is `f1`.

    Args:
        name: as in `evaluate.metrics` of a recipe, such as `f1`.
        arguments: of the metric, such as `average="macro"`.

    Raises:
        RecipeError: as `load_metric`.
    """
    import evaluate
    from datasets import Features, Value

    metric = load_metric(name, **arguments)
    inputs = getattr(metric, "inputs", None)
    average = f"_{arguments['average']}" if "average" in arguments else ""

    class InMemory(evaluate.Metric):
        def __init__(self) -> None:
            super().__init__(keep_in_memory=True)
            self.examples: tuple[list[Any], list[Any]] = ([], [])

        def __len__(self) -> int:
            return len(self.examples[1])

        def _build_data_dir(self) -> str:
            return str(self._data_dir_root)  # upstream makes a folder here, and nothing is ever written to it

        def _info(self) -> Any:
            features = Features({"predictions": Value("null"), "references": Value("null")})  # any: never encoded
            return evaluate.MetricInfo(description=name, citation="", inputs_description="", features=features)

        def add(self, *, prediction: Any = None, reference: Any = None) -> None:
            """Keep one example for `compute`."""
            self.add_batch(predictions=[prediction], references=[reference])

        def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
            """Keep some examples for `compute`."""
            # What is no array of labels or numbers is refused in the batch that has it.
            pair = paired_arrays(predictions, references, inputs) if inputs else (predictions, references)
            for examples, batch in zip(self.examples, pair, strict=True):
                examples += list(batch)

        def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, Any]:
            """Score these examples and those kept before."""
            if predictions is not None or references is not None:
                self.add_batch(predictions=predictions, references=references)
            (predictions, references), self.examples = self.examples, ([], [])
            found = metric.compute(predictions=predictions, references=references) or {}
            return {key.removesuffix(average): value for key, value in found.items()}

    return InMemory()
