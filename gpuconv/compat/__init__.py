"""The modules of two courses' homework, UCLA C147/C247 HW5 and Stanford CS231n A2, name for name, on our operators.

One line in front of the notebook, before its own imports:

    from gpuconv import compat; compat.install()

Then `from nndl.conv_layers import *`, `from utils.solver import Solver`, `from cs231n.fast_layers import *` and the rest
find the functions of this package.  `compat.install("fast_layers")` replaces those alone and leaves the student's own
layers in place; `compat.use("cuda")` computes on the GPU, with NumPy arrays in and out as before.

These are other people's homework: what is here is a reference to compare with and a fast replacement, not an answer to
hand in.  The functions do what the notebooks expect of them; nothing of the courses' own text or code is included.

    border.py          NumPy arrays in and out: one dtype, moved to where the operators run, and back
    params.py          the dicts of parameters and the cache tuples, in the terms of the operators
    layers.py          affine, ReLU, losses, batch and layer normalisation, dropout: dicts and tuples to operators
    conv_layers.py     the `_naive` functions, which are the oracle's loops, and the spatial normalisations
    fast_layers.py     `_fast`, `_strides`, `_im2col` and `_reshape`: the operators under the course's names
    layer_utils.py     the sandwiches: several layers in one call, which stay on the GPU in between
    im2col.py          the course's unfolding helpers, in plain NumPy, for code that calls them
    optim.py           the update rules with the state keys of CS231n, optim_ucla.py with those of UCLA
    solver.py          Solver: the course's training loop, its draws and its printing
    cnn.py, fc_net.py  ThreeLayerConvNet; TwoLayerNet and FullyConnectedNet
    data_utils.py      CIFAR-10 as the notebooks want it, read by gpuconv.data
    gradient_check.py  central differences, dense and sparse
    vis_utils.py       pictures side by side
    modules.py         which course module offers which of these names, and their registration
"""

from ..backend import use
from .modules import install, uninstall

__all__ = ["install", "uninstall", "use"]
