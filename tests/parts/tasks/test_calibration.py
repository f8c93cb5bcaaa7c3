"""Temperature and thresholds: what is fitted is the optimum, and what is read back decides as what was fitted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import f1_score

from hfpipe.errors import DataError, ModelError, RecipeError
from hfpipe.parts.tasks import TextTask, require_threshold_fits
from hfpipe.parts.tasks.calibration import NONE, Calibration, calibration_of, fit_temperature, fit_threshold
from hfpipe.parts.tasks.classes import Classes


def drawn(rows: int, classes: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their probabilities after division by `temperature`."""
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(rows, classes)) * 3
    probabilities = softmax(logits / temperature, axis=1)
    return logits, np.array([rng.choice(classes, p=row) for row in probabilities])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    """With 20,000 labels drawn at a temperature, the fitted one is within 4 % of it, and no neighbour is more likely."""
    logits, labels = drawn(20_000, 3, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.04)

    def likelihood(one: float) -> float:
        return float(log_softmax(logits / one, axis=1)[np.arange(len(labels)), labels].mean())

    assert likelihood(found) >= max(likelihood(found * 0.99), likelihood(found * 1.01))


def test_the_temperature_of_several_labels_is_that_of_each_by_itself() -> None:
    """Labels that may hold together are drawn one by one, and the temperature is found from all of them."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(8_000, 4)) * 2
    labels = (rng.random(logits.shape) < expit(logits / 1.8)).astype(np.int64)
    assert fit_temperature(logits, labels) == pytest.approx(1.8, rel=0.05)


@given(st.integers(0, 2**32 - 1), st.integers(4, 40))
@settings(max_examples=60, deadline=None)
def test_no_other_threshold_has_a_better_f1(seed: int, rows: int) -> None:
    """Against every threshold that parts the probabilities in another way, ties among them included."""
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, 12, rows) / 11
    is_positive = rng.random(rows) < 0.4
    if not is_positive.any() or is_positive.all():
        return
    found = fit_threshold(probabilities, is_positive, "yes", "here")
    best = max(f1_score(is_positive, probabilities >= line, zero_division=0) for line in np.unique(probabilities))
    assert f1_score(is_positive, probabilities >= found) == pytest.approx(best)
    assert not np.isclose(probabilities[probabilities != 0], found, atol=1e-9).any()  # rounding moves no row over it


def test_of_equally_good_thresholds_the_one_nearest_to_one_half_is_taken() -> None:
    """Where two lines are equally good, nothing is gained by an odd one."""
    probabilities, is_positive = np.array([0.1, 0.2, 0.45, 0.55, 0.9]), np.array([False, False, False, True, True])
    assert fit_threshold(probabilities, is_positive, "yes", "here") == pytest.approx(0.5)


@pytest.mark.parametrize(("is_positive", "told"), [([False] * 3, "no row"), ([True] * 3, "every row")])
def test_rows_of_one_side_alone_tell_no_threshold(is_positive: list[bool], told: str) -> None:
    """They are refused with the class, instead of a threshold of 0 or 1."""
    with pytest.raises(DataError, match=f"here: {told} of the calibration split is 'yes'"):
        fit_threshold(np.array([0.2, 0.4, 0.6]), np.array(is_positive), "yes", "here")


def test_it_comes_back_from_a_config_as_it_was() -> None:
    """What is written into a model's config decides as before, and a config without it changes nothing."""
    config = SimpleNamespace()
    assert calibration_of(config, "here") is NONE
    fitted = Calibration(1.7, (0.3,), "validation[:50%]", "abc")
    fitted.write(config)
    assert calibration_of(config, "here") == fitted


@pytest.mark.parametrize(
    "kept", [{"temperature": 0.0}, {"temperature": "warm"}, {"thresholds": [1.5]}, {"thresholds": None}]
)
def test_a_config_that_hfpipe_did_not_write_is_refused(kept: dict[str, object]) -> None:
    """Values without a meaning are an error of the checkpoint, not a silent default."""
    whole = {"temperature": 1.0, "thresholds": [], "fitted_on": None, "dataset": None, **kept}
    with pytest.raises(ModelError, match=r"hfpipe_calibration in its config\.json can't be read"):
        calibration_of(SimpleNamespace(hfpipe_calibration=whole), "here")


def test_a_temperature_moves_no_class_and_a_threshold_does() -> None:
    """Division keeps the order of the logits; the threshold of class 1 decides alone where there is one."""
    logits = np.array([[0.0, 0.1], [0.0, -0.1], [0.0, 2.0]])
    assert Calibration(3.0).one_of(logits)[0].tolist() == [1, 0, 1]
    said, probabilities = Calibration(3.0, (0.6,)).one_of(logits)
    assert said.tolist() == [0, 0, 1]
    assert probabilities == pytest.approx(softmax(logits / 3, axis=1))
    several, each = Calibration(2.0, (0.3, 0.9)).any_of(np.array([[-1.0, 1.0]]))
    assert several.tolist() == [[1, 0]]
    assert each == pytest.approx(expit(np.array([[-0.5, 0.5]])))


def test_a_threshold_is_for_two_classes() -> None:
    """With three, the third would never be predicted: it is refused before training, and not used where a model has one."""
    logits = np.eye(3) * 4
    assert Calibration(thresholds=(0.3,)).one_of(logits)[0].tolist() == [0, 1, 2]
    assert Calibration(thresholds=(0.3,)).one_of(np.array([[0.5, 0.0]]))[0].tolist() == [1]
    three = TextTask(("text",), "label", Classes(("a", "b", "c")))
    with pytest.raises(RecipeError, match=r"r\.yaml:1:2: .* between two classes, and there are 3: a, b, c"):
        require_threshold_fits(three, "f1", "r.yaml:1:2")
    require_threshold_fits(three, None, "r.yaml:1:2")
    require_threshold_fits(TextTask(("text",), "label", Classes(("a", "b"))), "f1", "r.yaml:1:2")
