"""The functions behind the commands."""

from hfpipe.pipeline.evaluating import Evaluation, evaluate
from hfpipe.pipeline.finetuning import finetune
from hfpipe.pipeline.looking import look_at_data, peek, preprocess
from hfpipe.pipeline.predicting import predict, predict_file, predict_glue, predict_windows
from hfpipe.pipeline.targets import reach_hub

__all__ = [
    "Evaluation",
    "evaluate",
    "finetune",
    "look_at_data",
    "peek",
    "predict",
    "predict_file",
    "predict_glue",
    "predict_windows",
    "preprocess",
    "reach_hub",
]
