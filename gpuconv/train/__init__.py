"""Train nets, keep what they learned, and go on after any interruption: `train(Config(...))`, `resume(folder)`.

start      the beginning of a run, or the way back into one
loop       epochs: steps, validation, saving
step       one step: forward, loss, backward, clip, update, note
ending     the test of the best epoch, and what the run came to
weights    what a run starts from, if not from first weights of its own
later      a run with a later end
recipe     settings -> images, steps, net, optimiser, schedule
feed       the batches of an epoch
precision  how a step computes: in the net's own dtype, or in 16 bits
processes  many processes: how they find, tell and end each other, by MPI
last_word  what is said of a process that was killed
team       what a run shares among them: batches, sums, decisions
messages   gradients and statistics from process to process, by the host or GPU to GPU
outcomes   what steps on a GPU came to, read every few of them
listed     the page of all runs, as one begins and ends
signals    Ctrl-C and `kill`, taken when nothing is half done
rehearsal  a dry run
rate_search  a learning rate to begin with
several    several runs of one recipe, in one folder
seeds      with several seeds
sweep      with several values of settings

What a run leaves on the disk is in gpuconv.runs, what people look at in gpuconv.show.
"""

from ..runs.checkpoint import load_net
from ..runs.config import Config
from ..runs.evaluation import Evaluation, evaluate
from ..runs.prediction import Classifier, Prediction, Predictions
from ..runs.result import Result
from ..runs.settings import PRESETS
from ..show.compare import Comparison, compare_runs
from ..show.run import Run
from .feed import Batch
from .later import ENDS, prolong
from .rate_search import RateSearch, find_rate
from .recipe import overfitting
from .rehearsal import Rehearsal, rehearse
from .seeds import Seeds, train_seeds
from .signals import Interrupted
from .start import resume, train
from .step import Stepper
from .sweep import Sweep, resume_several, train_sweep

__all__ = [
    "ENDS",
    "PRESETS",
    "Batch",
    "Classifier",
    "Comparison",
    "Config",
    "Evaluation",
    "Interrupted",
    "Prediction",
    "Predictions",
    "RateSearch",
    "Rehearsal",
    "Result",
    "Run",
    "Seeds",
    "Stepper",
    "Sweep",
    "compare_runs",
    "evaluate",
    "find_rate",
    "load_net",
    "overfitting",
    "prolong",
    "rehearse",
    "resume",
    "resume_several",
    "train",
    "train_seeds",
    "train_sweep",
]
