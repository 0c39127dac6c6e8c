# %% [markdown]
# # An autoencoder: a picture through six numbers
#
# A net that is given a picture and has to return it, through a bottleneck of six numbers. No label is needed: the
# picture is the target. Before the bottleneck stand convolutions with stride 2, which halve height and width; behind
# it *transposed* convolutions, which double them. What those are is seen first.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import gpuconv
from gpuconv import nn
from gpuconv.show import drawing

drawing.style()
QUICK = os.environ.get("GPUCONV_NOTEBOOK_QUICK") == "1"  # few pictures and epochs: for tests
rng = np.random.default_rng(0)

# %% [markdown]
# ## Transposed: the way back of a gradient
#
# A convolution is linear: on a signal of 8 values, with a window of 4, stride 2 and a zero on each side, it is a
# matrix $A$ of 4 x 8, one row for each place of the window. Its backward turns the gradient of the output into that
# of the input, and that is a product with $A^T$. A transposed convolution takes just this product as its *forward*:
# 4 values become 8. Both matrices can be read off by sending the columns of the identity through.

# %%
window = np.array([1.0, 2, 3, 4]).reshape(1, 1, 4)
geometry = {"stride": 2, "pad": 1}
down, _ = gpuconv.conv_forward(np.eye(8)[:, None], window, **geometry)
up, _ = gpuconv.conv_transpose_forward(np.eye(4)[:, None], window, **geometry)
A, transposed = down[:, 0].T, up[:, 0].T
assert (transposed == A.T).all()
assert not np.allclose(A.T @ A, np.eye(8))

fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3), width_ratios=[8, 4])
drawing.numbers(left, A, "conv_forward: 8 values to 4")
drawing.numbers(right, transposed, "conv_transpose_forward: 4 values to 8")
plt.show()

# %% [markdown]
# Read by columns, the right one says what it does: each value lays the window, times itself, on the output, two
# further than the one before, and where windows overlap they add up. Nothing is *undone*: $A^T A$ is not the
# identity, so the old name *deconvolution* promises too much.
#
# The same for images with channels: $\langle A x, y \rangle = \langle x, A^T y \rangle$ for any x and y, with the same
# filters in the same layout; and the transposed convolution is, to the last bit, what backward returns for x.

# %%
x, w = rng.standard_normal((2, 3, 16, 16)), rng.standard_normal((5, 3, 4, 4))
Ax, cache = gpuconv.conv_forward(x, w, **geometry)
y = rng.standard_normal(Ax.shape)
Aty, _ = gpuconv.conv_transpose_forward(y, w, **geometry)

left, right = (Ax * y).sum(), (x * Aty).sum()
print(f"A makes {x.shape[1:]} into {Ax.shape[1:]}, its transpose {y.shape[1:]} into {Aty.shape[1:]}")
print(f"<A x, y>   = {left:.12f}\n<x, A^T y> = {right:.12f}")
assert abs(left - right) < 1e-12 * np.linalg.norm(Ax) * np.linalg.norm(y)
assert np.array_equal(Aty, gpuconv.conv_backward(y, cache, weight_grad=False)[0])

# %% [markdown]
# ## Why windows of 4 x 4
#
# How many windows lie on a pixel? With all values and all weights 1 the output counts them. Where the stride does not
# divide the window, the counts differ from pixel to pixel: with 3 x 3 and stride 2 they are 1, 2 and 4, the pattern of
# a checkerboard, which a net has to learn to make up for. With 4 x 4 every pixel inside is covered by 4. That takes one
# cause of checkerboards away, not all: a net may still learn weights that are uneven, and those who found this would
# rather enlarge by copying pixels, `nn.Upsample` here, and convolve then. Source: Odena, Dumoulin and Olah,
# *Deconvolution and checkerboard artifacts*, Distill (2016).
#
# Sizes are simpler, too: with `pad=1` a window of 4 makes H to exactly 2 H, where one of 3 would make it 2 H - 1 and
# needs `output_pad=1`.

# %%
ones = np.ones((1, 1, 4, 4))
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.4))
counts = {}
for ax, size, more in zip(axes, (3, 4), (1, 0), strict=True):
    y, _ = gpuconv.conv_transpose_forward(ones, np.ones((1, 1, size, size)), output_pad=more, **geometry)
    counts[size] = y[0, 0]
    drawing.numbers(ax, counts[size], f"windows of {size} x {size}, stride 2", cmap=drawing.AMOUNT)
plt.show()
assert set(counts[3].flat) == {1, 2, 4}
assert counts[3].shape == counts[4].shape == (8, 8)
assert (counts[4][1:-1, 1:-1] == 4).all()

# %% [markdown]
# ## Pictures
#
# Discs, squares and rings, white on black, of many sizes, anywhere: four numbers say all about each, its kind among
# them. The net is told nothing of this. Edges are smooth, since a pixel can be covered in part.

# %%
SIZE = 32
vertical, horizontal = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2


def draw(count):
    """Return pictures of one channel, black 0, white 1."""
    kind = rng.integers(0, 3, (count, 1, 1))
    radius = rng.uniform(5, 9, (count, 1, 1))
    y, x = (axis - (15 - radius) * rng.uniform(-1, 1, (count, 1, 1)) for axis in (vertical, horizontal))
    disc = np.hypot(x, y) - radius
    square = np.maximum(abs(x), abs(y)) - 0.8 * radius
    ring = abs(np.hypot(x, y) - 0.75 * radius) - 0.25 * radius
    distance = np.choose(kind, (disc, square, ring))  # of each pixel to the edge, inside negative
    return np.clip(0.5 - distance, 0, 1)[:, None].astype(np.float32)


x_train, x_test = draw(500 if QUICK else 5000), draw(200)


def line_up(rows, titles):
    """Draw rows of pictures, each with its title."""
    _, axes = plt.subplots(len(rows), len(rows[0]), figsize=(9.5, 0.85 * len(rows)), squeeze=False)
    for line, pictures, title in zip(axes, rows, titles, strict=True):
        for ax, picture in zip(line, pictures, strict=True):
            ax.imshow(picture[0], cmap="gray", vmin=0, vmax=1)
            drawing.bare(ax)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")


line_up([x_train[:10], x_train[10:20]], ["", ""])
plt.show()

# %% [markdown]
# ## The net
#
# From 32 x 32 to 16, 8, 4, and by a window of 4 x 4 to a single "pixel" of six channels: the code. A transposed
# convolution of that pixel adds up six windows of 4 x 4, each times its number, and from there it goes back to 8, 16,
# 32. No batch norm: what becomes of a picture is not to depend on those beside it.

# %%
CODE = 6
encoder = nn.Sequential(
    nn.Conv(1, 16, 4, stride=2, pad=1),
    nn.Relu(),
    nn.Conv(16, 32, 4, stride=2, pad=1),
    nn.Relu(),
    nn.Conv(32, 64, 4, stride=2, pad=1),
    nn.Relu(),
    nn.Conv(64, CODE, 4),
)
decoder = nn.Sequential(
    nn.ConvTranspose(CODE, 64, 4),
    nn.Relu(),
    nn.ConvTranspose(64, 32, 4, stride=2, pad=1),
    nn.Relu(),
    nn.ConvTranspose(32, 16, 4, stride=2, pad=1),
    nn.Relu(),
    nn.ConvTranspose(16, 1, 4, stride=2, pad=1),
)
net = nn.Net(nn.Sequential(encoder=encoder, decoder=decoder), x_train.shape[1:])
pixels, code = np.prod(net.input_shape), np.prod(encoder.output_shape(net.input_shape))
print(f"{pixels:,} pixels, {code} numbers: {pixels // code} times fewer")
assert (pixels, code) == (1024, CODE)
assert net.output_shape == net.input_shape
net

# %% [markdown]
# ## Training
#
# The loss is the mean squared error $\frac1n \sum (y - x)^2$, whose gradient is $\frac2n (y - x)$: `net.backward` takes
# the gradient of any loss. Two numbers to compare with: the error of always answering with the mean picture, and that
# of the best *linear* code of six numbers, the projection on the first six principal components. No linear encoder
# and decoder have a smaller squared error on the pictures they were made from.

# %%
untrained = net.forward(x_test)
batch, epochs = 50, 2 if QUICK else 14
steps = epochs * len(x_train) // batch
optimiser, rate = nn.Adam(net), nn.OneCycle(0.007, steps)

losses, errors = [], []
for _ in range(epochs):
    for chosen in rng.permutation(len(x_train)).reshape(-1, batch):
        x = x_train[chosen]
        difference = net.forward(x, training=True) - x
        net.backward(2 / difference.size * difference)
        optimiser.step(rate(len(losses)))
        losses.append(np.mean(difference**2))
    errors.append(np.mean((net.forward(x_test) - x_test) ** 2))

# %%
mean = x_train.mean(axis=0)
_, _, components = np.linalg.svd((x_train - mean).reshape(len(x_train), -1), full_matrices=False)
basis = components[:CODE]
linear = ((x_test - mean).reshape(len(x_test), -1) @ basis.T @ basis).reshape(x_test.shape) + mean
of_mean, of_linear = np.mean((mean - x_test) ** 2), np.mean((linear - x_test) ** 2)

print(f"squared error on {len(x_test)} new pictures:")
print(f"mean picture {of_mean:.4f}, linear code {of_linear:.4f}, the net {errors[-1]:.4f}")
assert errors[-1] < of_linear / 8 or QUICK
assert errors[-1] < losses[0] / 20 or QUICK
assert np.abs(untrained).mean() < 0.1

fig, ax = plt.subplots(figsize=(6.5, 3.2))
ax.semilogy(losses, color=drawing.SKY, linewidth=0.8, label="training, each step")
ax.semilogy(np.arange(1, epochs + 1) * (steps // epochs), errors, "o-", label="new pictures, each epoch")
for height, text in ((of_mean, "mean picture"), (of_linear, "best linear code of six numbers")):
    ax.axhline(height, color=drawing.GREY, linestyle="--", linewidth=1)
    ax.text(steps, height, text, ha="right", va="bottom", color=drawing.GREY)
ax.set(xlabel="step", ylabel="mean squared error")
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# ## Pictures it has never seen, and what it returns
#
# Before training next to nothing comes out. The linear code finds the place and little more. The net returns place,
# size and kind; the faces of discs are a little uneven.

# %%
reconstructed = net.forward(x_test)
rows = {"picture": x_test, "untrained": untrained, "linear code": linear, "the net": reconstructed}
line_up([pictures[:10] for pictures in rows.values()], list(rows))
plt.show()

# %% [markdown]
# ## Walking from code to code
#
# Encoder and decoder are layers of their own, so each can be called alone. Halfway between two *pictures* both show
# through, grey. Halfway between their two *codes* the decoder draws something that is nearly black and white again:
# a shape on its way from one to the other.

# %%
first, last = 3, 7
share = np.linspace(0, 1, 10, dtype=np.float32).reshape(-1, 1, 1, 1)
faded = (1 - share) * x_test[first] + share * x_test[last]
codes = encoder.forward(x_test)
walked = decoder.forward((1 - share) * codes[first] + share * codes[last])
line_up([faded, walked], ["pictures", "codes"])
plt.show()


def grey(pictures):
    """Return the share of pixels between a quarter and three quarters."""
    return np.mean((pictures > 0.25) & (pictures < 0.75))


half = grey((x_test[::2] + x_test[1::2]) / 2), grey(decoder.forward((codes[::2] + codes[1::2]) / 2))
print(f"grey pixels halfway, {len(x_test) // 2} pairs: of pictures {half[0]:.1%}, of codes {half[1]:.1%}")
assert half[1] < half[0] / 2 or QUICK

# %% [markdown]
# With `gpuconv.use("cuda")` before the net is made, and pictures in CuPy arrays, the same loop trains on a GPU. For own
# pictures in colour take `nn.Conv(3, ...)` at the beginning, `nn.ConvTranspose(..., 3, ...)` at the end and a longer
# code: six numbers are enough here because the pictures differ in few ways.
