# %% [markdown]
# # Course code on gpuconv
#
# The notebooks of Stanford's CS231n (assignment 2) and UCLA's C147/C247 (homework 5) import layers, a solver and helpers
# from the folders `cs231n`, `nndl` and `utils`. One line before those imports, and they find gpuconv's: no compiler,
# no Cython, no restart. Here is what that is good for: to check a layer, to have fast ones under a net of one's own, to
# train it by the course's solver. It is a reference to compare with, not an answer to hand in.

# %%
from gpuconv import compat

compat.install()

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
from cs231n.fast_layers import conv_backward_fast, conv_forward_fast
from cs231n.gradient_check import eval_numerical_gradient_array
from cs231n.layer_utils import conv_bn_relu_pool_backward, conv_bn_relu_pool_forward
from cs231n.layers import affine_backward, affine_forward, conv_backward_naive, conv_forward_naive, softmax_loss
from cs231n.solver import Solver
from cs231n.vis_utils import visualize_grid

from gpuconv import data
from gpuconv.show import drawing

drawing.style()
QUICK = os.environ.get("GPUCONV_NOTEBOOK_QUICK") == "1"  # one epoch: for tests
rng = np.random.default_rng(0)
np.random.seed(231)  # noqa: NPY002 - what the solver draws from


def difference(a, b):
    """Return the largest relative difference, as the courses measure it."""
    return np.max(np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b)))


# %% [markdown]
# ## Two ways, one result
#
# `conv_forward_naive` is the definition as loops; `conv_forward_fast` is gpuconv's operator under the course's name and
# with its dict of parameters. Put your own function in the place of either: it should agree as closely.

# %%
x, w, b = (rng.standard_normal(shape) for shape in ((4, 3, 9, 9), (5, 3, 3, 3), 5))
param = {"stride": 2, "pad": 1}
slow, slow_cache = conv_forward_naive(x, w, b, param)
fast, fast_cache = conv_forward_fast(x, w, b, param)
dout = rng.standard_normal(fast.shape)
gradients = zip(conv_backward_naive(dout, slow_cache), conv_backward_fast(dout, fast_cache), strict=True)

errors = {"out": difference(slow, fast)} | {
    name: difference(*pair) for name, pair in zip(("dx", "dw", "db"), gradients, strict=True)
}
for name, error in errors.items():
    print(f"{name:>3}: {error:.0e}")
assert max(errors.values()) < 1e-8

# %% [markdown]
# ## A layer of your own
#
# Say, the mean of every channel, whatever the size of the picture. Its backward is right if it agrees with central
# differences, which `eval_numerical_gradient_array` takes of any function.


# %%
def mean_forward(x):
    """x: (N, C, H, W) -> (N, C)"""
    return x.mean(axis=(2, 3)), x.shape


def mean_backward(dout, shape):
    return np.broadcast_to(dout[:, :, None, None], shape) / (shape[2] * shape[3])


dout = rng.standard_normal((4, 3))
numeric = eval_numerical_gradient_array(lambda x: mean_forward(x)[0], x, dout)
print(f"dx: {difference(mean_backward(dout, x.shape), numeric):.0e}")
assert difference(mean_backward(dout, x.shape), numeric) < 1e-6

# %% [markdown]
# ## A net of your own
#
# What the solver asks of a net: arrays in `params`, and a `loss` that returns the scores, or, given labels, the loss and a
# gradient for each of them. The sandwiches of convolution, batch norm, ReLU and pooling are gpuconv's; the layer between
# them and the scores is yours.


# %%
class MeanNet:
    """conv - batch norm - relu - pool for each number of filters; the mean of every channel; a score for each class."""

    def __init__(self, filters=(16, 32, 64), classes=10):
        self.params, self.bn_params, channels = {}, [{} for _ in filters], 3
        for n, count in enumerate(filters):
            self.params[f"W{n}"] = rng.normal(0, np.sqrt(2 / (9 * channels)), (count, channels, 3, 3))
            self.params |= {f"b{n}": np.zeros(count), f"gamma{n}": np.ones(count), f"beta{n}": np.zeros(count)}
            channels = count
        self.params |= {"W": rng.normal(0, 0.01, (channels, classes)), "b": np.zeros(classes)}
        self.params = {name: array.astype(np.float32) for name, array in self.params.items()}

    def loss(self, X, y=None):
        p, conv, pool = self.params, {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}
        caches = []
        for n, bn in enumerate(self.bn_params):
            bn["mode"] = "test" if y is None else "train"
            sandwich = (p[f"{name}{n}"] for name in ("W", "b", "gamma", "beta"))
            X, cache = conv_bn_relu_pool_forward(X, *sandwich, conv, bn, pool)
            caches.append(cache)
        X, shape = mean_forward(X)
        scores, last = affine_forward(X, p["W"], p["b"])
        if y is None:
            return scores
        loss, dout = softmax_loss(scores, y)
        dout, dW, db = affine_backward(dout, last)
        dout, grads = mean_backward(dout, shape), {"W": dW, "b": db}
        for n, cache in reversed([*enumerate(caches)]):
            dout, *gradients = conv_bn_relu_pool_backward(dout, cache)
            grads |= {f"{name}{n}": each for name, each in zip(("W", "b", "gamma", "beta"), gradients, strict=True)}
        return loss, grads


# %% [markdown]
# ## Trained by the course's solver
#
# On shapes that gpuconv draws, so that nothing has to be fetched; `get_CIFAR10_data` of `cs231n.data_utils` returns the same dict
# of CIFAR-10, where `gpuconv data get` has put it.

# %%
shapes = data.draw_shapes(300 if QUICK else 4000, 100 if QUICK else 500)
mean = shapes.x_train.mean(axis=0)
arrays = {
    "X_train": (shapes.x_train - mean).astype(np.float32) / 64,
    "y_train": shapes.y_train,
    "X_val": (shapes.x_test - mean).astype(np.float32) / 64,
    "y_val": shapes.y_test,
}
net = MeanNet()
solver = Solver(
    net,
    arrays,
    update_rule="adam",
    optim_config={"learning_rate": 5e-3},
    lr_decay=0.8,
    num_epochs=1 if QUICK else 8,
    batch_size=50,
    verbose=False,
)
solver.train()
print(f"training {solver.train_acc_history[-1]:.0%}, validation {solver.best_val_acc:.0%}")
assert solver.best_val_acc > 0.5 or QUICK

# %%
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9.5, 3), width_ratios=[3, 3, 2.6])
left.plot(solver.loss_history, linewidth=0.6)
left.set(xlabel="iteration", ylabel="loss", title="Loss of each batch")
middle.plot(solver.train_acc_history, "o-", label="training", markersize=4)
middle.plot(solver.val_acc_history, "o-", label="validation", markersize=4)
middle.set(xlabel="epoch", ylabel="accuracy", title="How often it is right")
middle.legend()
grid = visualize_grid(net.params["W0"].transpose(0, 2, 3, 1))
right.imshow(grid.astype("uint8"))
drawing.bare(right, "First filters")
plt.show()

# %% [markdown]
# ## More of it
#
# - `compat.install("fast_layers")` replaces the fast layers alone: your own `layers.py` stays what it is.
# - `compat.use("cuda")` computes on a GPU; arrays that go in and come out are NumPy's, as before.
# - `compat.uninstall()` takes it all back.
# - `nndl.*` and `utils.*` are UCLA's names of the same. `python -m gpuconv data get` fetches CIFAR-10.
