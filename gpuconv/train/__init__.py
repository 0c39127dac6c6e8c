"""Train nets, keep what they learned, and go on after any interruption: `train(Config(...))`, `resume(folder)`."""

from .config import PRESETS, Config
from .evaluation import Evaluation, evaluate
from .loop import Result, resume, train
from .run import Run
from .signals import Interrupted
from .snapshot import load_net

__all__ = ["PRESETS", "Config", "Evaluation", "Interrupted", "Result", "Run", "evaluate", "load_net", "resume", "train"]
