"""The optimizer of a job: which parameters decay, what each factory takes, and what is refused."""

import functools
import math

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    Trainer,
    TrainingArguments,
)

from hfpipe.errors import ModelError, RecipeError
from hfpipe.parts.optim import updaters
from hfpipe.parts.optim.optimizers import build_optimizer, decayed_parameter_names, parameter_groups

TINY = {"vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
CONFIGS = {
    "bert": BertConfig(**TINY),
    "distilbert": DistilBertConfig(vocab_size=32, dim=8, n_layers=2, n_heads=2, hidden_dim=12),
    "deberta-v2": DebertaV2Config(**TINY, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "modernbert": ModernBertConfig(**TINY, pad_token_id=0, norm_bias=True, reference_compile=False),
}
TAKES_GROUPS = [
    torch.optim.AdamW,
    torch.optim.Adam,
    torch.optim.SGD,
    torch.optim.Adagrad,
    torch.optim.RMSprop,
    torch.optim.Adadelta,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.Rprop,
    torch.optim.Adafactor,
]
UPDATERS = [
    updaters.updater_sgd,
    updaters.updater_momentum,
    updaters.updater_nesterov,
    updaters.updater_adagrad,
    updaters.updater_rmsprop,
    updaters.updater_adadelta,
    updaters.updater_adam,
    updaters.updater_adamw,
]


class Small(torch.nn.Module):
    """A matrix, its bias, a norm whose type alone says so, and one for each way of naming a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dense = torch.nn.Linear(3, 4)
        self.scale = torch.nn.LayerNorm(4)
        for name in ("norm", "final_norm", "PreLayerNorm", "preRMSNorm"):
            self.add_module(name, torch.nn.RMSNorm(4))

    def forward(self, features):
        return self.preRMSNorm(self.PreLayerNorm(self.final_norm(self.norm(self.scale(self.dense(features))))))


def tiny(family):
    """A random model of the family with a classification head."""
    return AutoModelForSequenceClassification.from_config(CONFIGS[family])


@pytest.mark.parametrize("family", CONFIGS)
def test_the_groups_are_trainers(family, tmp_path):
    """For each family the two groups hold Trainer's very parameters, in its order, with its decays and its rate."""
    model = tiny(family)
    arguments = TrainingArguments(tmp_path, learning_rate=3e-4, weight_decay=0.1, report_to=[], use_cpu=True)
    trainer = Trainer(model, arguments)
    assert decayed_parameter_names(model) == set(trainer.get_decay_parameter_names(model))
    want, got = trainer.create_optimizer(), build_optimizer(model, torch.optim.AdamW, lr=3e-4, weight_decay=0.1)
    assert type(got) is type(want)
    assert len(got.param_groups) == len(want.param_groups) == 2
    for mine, theirs in zip(got.param_groups, want.param_groups, strict=True):
        assert [id(param) for param in mine["params"]] == [id(param) for param in theirs["params"]]
        assert mine["params"]
        rest = [{key: value for key, value in group.items() if key != "params"} for group in (mine, theirs)]
        assert rest[0] == rest[1]


def test_biases_and_norms_do_not_decay():
    """Biases, norms by name and norms by type are out of the decay; the matrix is in."""
    model = Small()
    groups = parameter_groups(model, 0.1)
    assert [id(param) for param in groups[0]["params"]] == [id(model.dense.weight)]
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (0.1, 0.0)
    assert len(groups[1]["params"]) == 7


def test_frozen_parameters_are_left_out():
    """A frozen parameter is in no group; with everything frozen there is nothing to train, which is an error."""
    model = Small()
    model.dense.weight.requires_grad_(False)
    groups = parameter_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [0, 7]
    build_optimizer(model, torch.optim.AdamW, lr=0.1)
    model.requires_grad_(False)
    with pytest.raises(ModelError, match="no trainable parameter"):
        build_optimizer(model, torch.optim.AdamW, lr=0.1)


@pytest.mark.parametrize("factory", [*TAKES_GROUPS, *UPDATERS], ids=lambda factory: factory.__name__)
def test_every_optimizer_takes_a_step(factory):
    """Each factory is built with the rate and the decay in its groups, and its step changes the weights."""
    model = Small()
    decay = 0.0 if factory is torch.optim.Rprop else 0.1
    optimizer = build_optimizer(model, factory, lr=0.05, weight_decay=decay)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.05, decay), (0.05, 0.0)]
    before = model.dense.weight.detach().clone()
    model(torch.randn(5, 3, generator=torch.Generator().manual_seed(1))).pow(3).sum().backward()
    optimizer.num_items = 5
    optimizer.step()
    assert torch.isfinite(model.dense.weight).all()
    assert not torch.equal(model.dense.weight, before)


def test_no_optimizer_of_torch_is_forgotten():
    """torch.optim has no optimizer besides those that are tried here and those that are refused with a reason."""
    every = {
        found
        for found in vars(torch.optim).values()
        if isinstance(found, type) and issubclass(found, torch.optim.Optimizer) and found is not torch.optim.Optimizer
    }
    refused = every - set(TAKES_GROUPS)
    assert {found.__name__ for found in refused} == {"LBFGS", "SparseAdam", "Muon"}
    for factory in refused:
        with pytest.raises(RecipeError, match=f"{factory.__name__} can't train here: it takes") as caught:
            build_optimizer(Small(), factory, lr=0.1)
        assert caught.value.exit_code == 2


def test_adamw_is_fused_unless_told_otherwise():
    """AdamW is fused by default as Trainer's; `fused: false` and `foreach: true` are obeyed; others are left alone."""
    fused = [
        build_optimizer(Small(), factory, lr=0.1, **arguments).defaults["fused"]
        for factory, arguments in [
            (torch.optim.AdamW, {}),
            (torch.optim.AdamW, {"fused": False}),
            (torch.optim.AdamW, {"foreach": True}),
            (torch.optim.Adam, {}),
        ]
    ]
    assert fused == [True, False, None, None]


def test_arguments_reach_the_factory():
    """Arguments are passed on by name, a YAML list as the tuple that torch documents."""
    for factory in (torch.optim.AdamW, torch.optim.Adamax, updaters.updater_adam):
        optimizer = build_optimizer(Small(), factory, lr=0.1, betas=[0.8, 0.9], eps=1e-6)
        assert optimizer.defaults["betas"] == (0.8, 0.9)
        assert optimizer.defaults["eps"] == 1e-6


def test_a_users_own_factory_is_welcome():
    """A plain function, a partial and a function of any keyword all work, and their groups carry the decay."""

    def mine(params, lr, momentum=0.5):
        return torch.optim.SGD(params, lr=lr, momentum=momentum)

    def anything(params, **arguments):
        return torch.optim.SGD(params, **arguments)

    for factory in (mine, anything, functools.partial(torch.optim.SGD, nesterov=True)):
        optimizer = build_optimizer(Small(), factory, lr=0.1, weight_decay=0.2, momentum=0.7)
        assert optimizer.defaults["momentum"] == 0.7
        assert optimizer.param_groups[0]["weight_decay"] == 0.2


def not_an_optimizer(params, lr):
    """A factory that makes the wrong thing."""
    return "done"


@pytest.mark.parametrize(
    ("factory", "arguments", "text"),
    [
        (torch.optim.AdamW, {"lr": -1e-5}, "optimizer.lr: lr is -1e-05"),
        (torch.optim.AdamW, {"lr": math.nan}, "lr is nan"),
        (torch.optim.AdamW, {"lr": math.inf}, "lr is inf"),
        (torch.optim.AdamW, {"lr": "2e-5"}, "lr is '2e-5'"),
        (torch.optim.AdamW, {"lr": True}, "lr is True"),
        (torch.optim.AdamW, {"weight_decay": -0.1}, "weight_decay is -0.1"),
        (torch.optim.AdamW, {"weight_decay": math.nan}, "weight_decay is nan"),
        (torch.optim.Rprop, {"weight_decay": 0.1}, "Rprop has no weight decay, and the recipe asks for 0.1"),
        (
            torch.optim.SGD,
            {"momentun": 0.9},
            "SGD takes no 'momentun'; did you mean 'momentum'?; allowed: lr, weight_decay",
        ),
        (torch.optim.AdamW, {"momentum": 0.9}, "AdamW takes no 'momentum'; allowed: lr, weight_decay, betas, eps"),
        (updaters.updater_sgd, {"batch_size": 8}, "updater_sgd takes no 'batch_size'; allowed: lr, weight_decay"),
        (torch.optim.AdamW, {"betas": [0.9, 1.5]}, "AdamW refused its arguments: Invalid beta parameter"),
        (torch.optim.AdamW, {"betas": 0.9}, "AdamW refused its arguments"),
        (torch.optim.AdamW, {"fused": True, "foreach": True}, "AdamW refused its arguments"),
        (torch.optim.SGD, {"nesterov": True}, "SGD refused its arguments: Nesterov momentum requires"),
        (updaters.updater_adam, {"betas": [0.9, 2.0]}, "0 <= betas < 1"),
        (not_an_optimizer, {}, "not_an_optimizer made a str; allowed: a torch.optim.Optimizer"),
    ],
)
def test_what_cannot_work_is_refused(factory, arguments, text):
    """A wrong rate, decay, argument or factory is a RecipeError that says what came and what is allowed."""
    with pytest.raises(RecipeError) as caught:
        build_optimizer(Small(), factory, **{"lr": 0.1, **arguments})
    assert text in str(caught.value)
