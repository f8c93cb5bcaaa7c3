"""The losses against torch's own functions and the closed formulas, values and gradients."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.optim import losses

CLASSIFICATION = [
    losses.cross_entropy,
    losses.bce_with_logits,
    losses.mse,
    losses.l1,
    losses.smooth_l1,
    losses.kl_div,
    losses.cosine_embedding,
    losses.focal,
    losses.earth_mover,
]
REGRESSION = [losses.mse, losses.l1, losses.smooth_l1]
WEIGHTS = torch.tensor([0.5, 2.0, 0.25, 1.75], dtype=torch.float64)


def batch(items=7, classes=4, dtype=torch.float64, seed=0):
    """Random logits `[items, classes]` that want a gradient, and class ids `[items]`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(items, classes, dtype=torch.float64, generator=generator)
    targets = torch.randint(classes, (items,), generator=generator)
    return logits.to(dtype).requires_grad_(), targets


def smoothed(targets, classes, eps):
    """The dense target written out as loops. `[items, classes]`."""
    rows = [[(1 - eps) * (c == y) + eps / classes for c in range(classes)] for y in targets.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def closed(loss, logits, targets, eps, weights):
    """The formula of each docstring, item by item and class by class, in float64. `[items]`."""
    classes = logits.shape[1]
    t = smoothed(targets, classes, eps)
    w = torch.ones(classes, dtype=torch.float64) if weights is None else weights
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    d = logits - t
    if loss is losses.cross_entropy:
        return -(w * t * p.log()).sum(-1)
    s = 1 / (1 + (-logits).exp())
    entropy = torch.special.entr(t).sum(-1)
    items = {
        losses.bce_with_logits: -(t * s.log() + (1 - t) * (1 - s).log()).mean(-1),
        losses.mse: d.pow(2).mean(-1),
        losses.l1: d.abs().mean(-1),
        losses.smooth_l1: torch.where(d.abs() < 1, d.pow(2) / 2, d.abs() - 0.5).mean(-1),
        losses.kl_div: -(t * p.log()).sum(-1) - entropy,
        losses.cosine_embedding: 1 - (logits * t).sum(-1) / (logits.norm(dim=-1) * t.norm(dim=-1)),
        losses.focal: -(t * (1 - p) ** 2 * p.log()).sum(-1),
        losses.earth_mover: torch.stack([(p - t)[:, : k + 1].sum(-1) ** 2 for k in range(classes)]).sum(0),
    }
    return w[targets] * items[loss]


def gradient(items, logits):
    """The gradient of the sum with respect to the logits. `[items, classes]`."""
    return torch.autograd.grad(items.sum(), logits)[0]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("loss", CLASSIFICATION, ids=lambda loss: loss.__name__)
def test_a_classification_loss_is_its_closed_formula(loss, eps, weights):
    """Each loss, item by item, and its gradient equal the formula of its docstring to 1e-10, smoothed and weighted."""
    logits, targets = batch()
    got = loss(logits, targets, label_smoothing=eps, class_weights=weights)
    want = closed(loss, logits, targets, eps, weights)
    assert got.shape == targets.shape
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient(got, logits), gradient(want, logits), rtol=1e-10, atol=1e-10)


def torch_mean(loss, logits, targets, eps):
    """torch's own reduced function on the same dense targets, where it has one."""
    dense = smoothed(targets, logits.shape[1], eps)
    if loss is losses.cross_entropy:
        return F.cross_entropy(logits, targets, label_smoothing=eps)
    if loss is losses.kl_div:
        return F.kl_div(F.log_softmax(logits, -1), dense, reduction="batchmean")
    if loss is losses.cosine_embedding:
        return F.cosine_embedding_loss(logits, dense, torch.ones(len(targets)))
    functions = {
        losses.bce_with_logits: F.binary_cross_entropy_with_logits,
        losses.mse: F.mse_loss,
        losses.l1: F.l1_loss,
        losses.smooth_l1: F.smooth_l1_loss,
    }
    return functions[loss](logits, dense)


@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("loss", CLASSIFICATION[:-2], ids=lambda loss: loss.__name__)
def test_the_mean_over_the_items_is_torchs_mean(loss, eps):
    """The mean of the items' losses and its gradient equal torch's function with its own mean, to 1e-12."""
    logits, targets = batch(items=9)
    got = loss(logits, targets, label_smoothing=eps).mean()
    want = torch_mean(loss, logits, targets, eps)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient(got, logits), gradient(want, logits), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(
    items=st.integers(1, 12),
    classes=st.integers(2, 6),
    eps=st.floats(0, 1),
    seed=st.integers(0, 10_000),
    weighted=st.booleans(),
)
def test_the_weighted_sum_over_the_divisor_is_torchs_weighted_mean(items, classes, eps, seed, weighted):
    """Summed losses over summed item weights are torch's cross entropy, for any weights and smoothing."""
    logits, targets = batch(items, classes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(classes, dtype=torch.float64, generator=generator) + 0.1 if weighted else None
    got = losses.cross_entropy(logits, targets, label_smoothing=eps, class_weights=weights).sum()
    got = got / losses.item_weights(targets, weights).sum()
    want = F.cross_entropy(logits, targets, weight=weights, label_smoothing=eps)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(got, logits), gradient(want, logits), rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 8))
def test_micro_batches_add_up_to_the_whole(seed, cut):
    """Split anywhere, the sums and divisors of the parts add up to those of the whole: nothing is normalised inside."""
    logits, targets = batch(items=8, seed=seed)
    for loss in CLASSIFICATION:
        kwargs = {"label_smoothing": 0.1, "class_weights": WEIGHTS}
        whole = loss(logits, targets, **kwargs)
        parts = [loss(logits[s], targets[s], **kwargs) for s in (slice(cut), slice(cut, None))]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("loss", CLASSIFICATION, ids=lambda loss: loss.__name__)
def test_an_empty_batch_gives_nothing(loss):
    """No items: an empty vector."""
    logits, targets = batch()
    assert loss(logits[:0], targets[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", CLASSIFICATION, ids=lambda loss: loss.__name__)
def test_half_precision_is_computed_in_float32(loss, dtype):
    """Half-precision logits give, bit for bit, the float32 loss of the same numbers; the gradient has their type."""
    logits, targets = batch(dtype=dtype)
    got = loss(logits, targets, label_smoothing=0.1, class_weights=WEIGHTS)
    assert got.dtype == torch.float32
    assert torch.equal(got, loss(logits.detach().float(), targets, label_smoothing=0.1, class_weights=WEIGHTS))
    assert gradient(got, logits).dtype == dtype


@pytest.mark.parametrize("loss", REGRESSION, ids=lambda loss: loss.__name__)
def test_a_regression_loss_is_torchs(loss):
    """With one float per item the losses and gradients are torch's, item by item, and half precision is widened."""
    logits, _ = batch(items=3)
    logits, targets = logits[:, 0], 2 * batch(items=3, seed=5)[0].detach()[:, 1]
    reference = {losses.mse: F.mse_loss, losses.l1: F.l1_loss, losses.smooth_l1: F.smooth_l1_loss}[loss]
    got, want = loss(logits, targets), reference(logits, targets, reduction="none")
    assert torch.equal(got, want)
    assert torch.equal(gradient(got, logits), gradient(want, logits))
    assert loss(logits.bfloat16(), targets.bfloat16()).dtype == torch.float32
    assert loss(logits.float(), targets).dtype == torch.float32


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 5.0])
def test_smooth_l1_passes_its_beta_on(beta):
    """`beta` moves the joint of the parabola and the line as torch's does, for both shapes."""
    logits, targets = batch()
    dense = smoothed(targets, 4, 0.0)
    want = F.smooth_l1_loss(logits, dense, beta=beta, reduction="none").mean(-1)
    torch.testing.assert_close(losses.smooth_l1(logits, targets, beta=beta), want, rtol=0, atol=1e-14)
    flat = F.smooth_l1_loss(logits[:, 0], dense[:, 0], beta=beta, reduction="none")
    assert torch.equal(losses.smooth_l1(logits[:, 0], dense[:, 0], beta=beta), flat)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_its_formula_and_keeps_a_finite_gradient(gamma):
    """focal is (1 - p)^gamma times the cross entropy for every gamma, with a finite gradient where p rounds to 1."""
    logits, targets = batch()
    p = logits.softmax(-1)[torch.arange(7), targets]
    want = -((1 - p) ** gamma) * p.log()
    got = losses.focal(logits, targets, gamma=gamma)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient(got, logits), gradient(want, logits), rtol=1e-9, atol=1e-12)
    sure = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    certain = losses.focal(sure, torch.tensor([0, 0]), gamma=gamma)
    assert certain[0] == 0
    torch.testing.assert_close(certain[1], torch.tensor(400.0))
    assert torch.isfinite(gradient(certain, sure)).all()


def test_focal_with_gamma_zero_is_cross_entropy():
    """At gamma 0 focal loss is cross entropy, and the alpha of its paper is the class weight."""
    logits, targets = batch()
    got = losses.focal(logits, targets, gamma=0.0, class_weights=WEIGHTS)
    torch.testing.assert_close(got, losses.cross_entropy(logits, targets, class_weights=WEIGHTS), rtol=0, atol=1e-13)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_multi_hot_bce_is_torchs(eps, weights):
    """With multi-hot targets the mean over the items is torch's mean over all numbers, weighted and smoothed too."""
    logits, _ = batch()
    targets = (torch.rand(7, 4, generator=torch.Generator().manual_seed(3)) < 0.4).double()
    got = losses.bce_with_logits(logits, targets, label_smoothing=eps, class_weights=weights)
    want = F.binary_cross_entropy_with_logits(logits, targets * (1 - eps) + eps / 2, weight=weights)
    assert got.shape == (7,)
    divisor = losses.item_weights(targets, weights).sum()
    torch.testing.assert_close(got.sum() / divisor, want, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradient(got.mean(), logits), gradient(want, logits), rtol=0, atol=1e-13)


def test_item_weights_are_what_a_mean_divides_by():
    """An item weighs w_y, or 1; a number or a multi-hot row weighs 1."""
    targets = torch.tensor([1, 0, 3])
    assert losses.item_weights(targets, WEIGHTS).tolist() == [2.0, 0.5, 1.75]
    assert losses.item_weights(targets, None).tolist() == [1.0, 1.0, 1.0]
    assert losses.item_weights(torch.tensor([-100.0, 1.5]), None).tolist() == [1.0, 1.0]
    assert losses.item_weights(torch.zeros(3, 4), WEIGHTS).tolist() == [1.0, 1.0, 1.0]


@settings(deadline=None, max_examples=50)
@given(counts=st.lists(st.integers(1, 10_000), min_size=2, max_size=8))
def test_balanced_weights_are_scikit_learns(counts):
    """`balanced` equals scikit-learn's compute_class_weight on labels with those counts."""
    counts = [min(count, 50) for count in counts]
    labels = np.repeat(np.arange(len(counts)), counts)
    want = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(losses.class_weights("balanced", counts).numpy(), want, rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(1, 100_000), min_size=2, max_size=8),
    beta=st.one_of(st.floats(0, 0.9999999), st.sampled_from([0.0, 0.9, 0.999, 0.9999])),
)
def test_effective_number_weights_are_the_papers(counts, beta):
    """`effective_number` is (1 - beta) / (1 - beta^n), scaled to sum to the classes; computed here in 400 digits."""
    with localcontext(prec=400):
        shares = [(1 - Decimal(beta)) / (1 - Decimal(beta) ** count) for count in counts]
        want = [float(len(counts) * share / sum(shares)) for share in shares]
    got = losses.class_weights({"effective_number": beta}, counts)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)
    assert math.isclose(got.double().sum().item(), len(counts), rel_tol=1e-6)


def test_effective_number_reaches_from_equal_to_inverse_frequency():
    """Beta 0 weights all classes alike; a beta next to 1 weights them by 1 / n."""
    assert losses.class_weights({"effective_number": 0.0}, [1, 10, 100]).tolist() == [1.0, 1.0, 1.0]
    near_one = losses.class_weights({"effective_number": 1 - 1e-12}, [1, 10, 100])
    np.testing.assert_allclose((near_one / near_one[0]).numpy(), [1, 0.1, 0.01], rtol=1e-6)


def test_listed_weights_stand_as_they_are():
    """A list is taken as it stands, zeros included, whatever the counts."""
    assert losses.class_weights([1, 0, 2.5], [5, 0, 1]).tolist() == [1.0, 0.0, 2.5]


@pytest.mark.parametrize(
    ("spec", "counts", "error", "text"),
    [
        ([1.0, 2.0], [1, 2, 3], RecipeError, "2 class weights for 3 classes"),
        ([1.0, -2.0], [1, 2], RecipeError, "finite numbers of 0 or more"),
        ([1.0, math.nan], [1, 2], RecipeError, "finite numbers of 0 or more"),
        ([0, 0], [1, 2], RecipeError, "not all 0"),
        (["1", "2"], [1, 2], RecipeError, "finite numbers"),
        ("balance", [1, 2], RecipeError, "balanced, {effective_number: BETA}, a list"),
        ({"effective": 0.9}, [1, 2], RecipeError, "did you mean 'effective_number'"),
        ({"effective_number": 1.0}, [1, 2], RecipeError, "0 <= beta < 1"),
        ({"effective_number": "high"}, [1, 2], RecipeError, "0 <= beta < 1"),
        ("balanced", [3, 0, 0], DataError, "no training example of class 1, 2"),
        ({"effective_number": 0.9}, [0, 4], DataError, "no training example of class 0"),
    ],
)
def test_impossible_class_weights_are_refused(spec, counts, error, text):
    """Class weights that can't be made are an error of the recipe, or of the data, that says what is wrong."""
    with pytest.raises(error) as caught:
        losses.class_weights(spec, counts)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda z, y: losses.cross_entropy(z[:, 0], y.double()), "take mse, l1 or smooth_l1"),
        (lambda z, y: losses.cross_entropy(z, y.double()), "targets [7] of float64"),
        (lambda z, y: losses.cross_entropy(z, y[:3]), "targets [3] of int64"),
        (lambda z, y: losses.mse(z[:, 0], y), "float targets [items]"),
        (lambda z, y: losses.mse(z[:, 0], y[:1].double()), "targets [1]"),
        (lambda z, y: losses.l1(z[:, 0], y.double(), label_smoothing=0.1), "label_smoothing has no meaning"),
        (lambda z, y: losses.smooth_l1(z[:, 0], y.double(), class_weights=WEIGHTS), "class_weights has no meaning"),
        (lambda z, y: losses.bce_with_logits(z, z.detach()[:, :3]), "both [items, classes]"),
        (lambda z, y: losses.focal(z, y, gamma=-1.0), "gamma is -1.0"),
        (lambda z, y: losses.smooth_l1(z, y, beta=math.nan), "beta is nan"),
        (lambda z, y: losses.kl_div(z, y, label_smoothing=1.5), "label_smoothing is 1.5"),
        (
            lambda z, y: losses.cross_entropy(z, y, class_weights=WEIGHTS[:3]),
            "class weights [3] of float64 for 4 classes",
        ),
        (lambda z, y: losses.cross_entropy(z.long(), y), "logits of floats"),
    ],
)
def test_wrong_shapes_and_options_are_refused(call, text):
    """Shapes and options that a loss can't take raise a RecipeError that names what came and what is allowed."""
    logits, targets = batch()
    with pytest.raises(RecipeError) as caught:
        call(logits, targets)
    assert text in str(caught.value)
