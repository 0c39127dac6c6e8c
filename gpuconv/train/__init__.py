"""Train nets, keep what they learned, and go on after any interruption: `train(Config(...))`, `resume(folder)`."""

from .compare import compare_runs
from .config import PRESETS, Config, overfitting
from .evaluation import Evaluation, evaluate
from .loop import Result, resume, train
from .rehearsal import Rehearsal, rehearse
from .run import Run
from .seeds import Seeds, resume_seeds, train_seeds
from .signals import Interrupted
from .snapshot import load_net

__all__ = [
    "PRESETS",
    "Config",
    "Evaluation",
    "Interrupted",
    "Rehearsal",
    "Result",
    "Run",
    "Seeds",
    "compare_runs",
    "evaluate",
    "load_net",
    "overfitting",
    "rehearse",
    "resume",
    "resume_seeds",
    "train",
    "train_seeds",
]
