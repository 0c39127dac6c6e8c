# %% [markdown]
# # Convolution and pooling, forward and backward
#
# What a convolution looks at, what stride, padding and dilation change about that, and where a gradient goes on its
# way back. Every number in the pictures below was computed by `gpuconv`; the asserts check what the text claims.
#
# Names of sizes: a batch of images is `N C H W` (images, channels, height, width), a bank of filters is `K C R S`
# (filters, channels, window height, window width), and an output is `N K P Q`.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpuconv
from gpuconv import data, testing
from gpuconv.show import drawing
from gpuconv.show.drawing import numbers, outline

drawing.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## One output is one weighted sum
#
# The filter is laid on the image; what lies under it is multiplied by the weights and added up:
#
# $$y_{pq} = \sum_{r,s} x_{p+r,\;q+s}\, w_{rs}$$
#
# With several channels the sum also runs over them, and every filter makes one channel of the output. The filter is
# not turned around, so mathematicians would say *correlation*; in neural networks it is called convolution.

# %%
x = rng.integers(0, 6, (1, 1, 6, 6)).astype(float)
w = np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).reshape(1, 1, 3, 3)  # left minus right: vertical edges
y, _ = gpuconv.conv_forward(x, w)

p, q = 1, 2
patch = x[0, 0, p : p + 3, q : q + 3]
assert y[0, 0, p, q] == (patch * w[0, 0]).sum()

fig, axes = plt.subplots(1, 4, figsize=(9.5, 2.7), width_ratios=[6, 3.3, 3.3, 4.2])
numbers(axes[0], x[0, 0], "image x, 6 x 6", cmap=drawing.AMOUNT)
outline(axes[0], p, q, 3, 3, drawing.RED)
numbers(axes[1], w[0, 0], "filter w, 3 x 3")
numbers(axes[2], patch * w[0, 0], f"window times w,\nsum {y[0, 0, p, q]:g}", limit=10)
numbers(axes[3], y[0, 0], "output y, 4 x 4")
outline(axes[3], p, q, color=drawing.RED)
plt.show()

# %% [markdown]
# ## What stride, padding and dilation do
#
# Stride is how far the window moves from one output to the next, padding is how many zeros are put around the image,
# dilation is how far apart the pixels are that one window sees. In each direction there are
#
# $$P = \left\lfloor \frac{H + 2\,\text{pad} - \text{dilation}\,(R-1) - 1}{\text{stride}} \right\rfloor + 1$$
#
# outputs. **Top:** the pixels that the first output sees (blue discs) and the second (orange rings); grey is padding.
# **Bottom:** how many windows see each pixel. Without padding the corners count once, the middle nine times. With
# stride 2 the last row and column of this image are never seen, because a window that would stick out is dropped.
# With dilation 2 each window leaves gaps, and here the four windows just fill each other's.
#
# The counts need no loop: with all weights 1, the gradient of the sum of all outputs is how often each pixel was used.

# %%
settings = [{}, {"stride": 2}, {"pad": 1}, {"dilation": 2}]
fig, axes = plt.subplots(2, 4, figsize=(9.5, 4.9), height_ratios=[8.2, 6.2])
for (top, bottom), geometry in zip(axes.T, settings, strict=True):
    stride, pad, dilation = (geometry.get(name, usual) for name, usual in (("stride", 1), ("pad", 0), ("dilation", 1)))
    y, cache = gpuconv.conv_forward(np.zeros((1, 1, 6, 6)), np.ones((1, 1, 3, 3)), **geometry)
    size = y.shape[2]
    assert size == (6 + 2 * pad - dilation * (3 - 1) - 1) // stride + 1

    counts, _, _ = gpuconv.conv_backward(np.ones_like(y), cache)
    name = ", ".join(f"{key} {value}" for key, value in geometry.items()) or "stride 1, no padding"
    if pad:
        top.add_patch(plt.Rectangle((-1.5, -1.5), 8, 8, color="#DDDDDD", zorder=-1))
    numbers(top, np.full((6, 6), np.nan), f"{name}\noutput {size} x {size}", limit=1)
    for second, (color, face, area) in enumerate(((drawing.SKY, drawing.SKY, 75), (drawing.ORANGE, "none", 190))):
        rows = np.repeat(np.arange(3) * dilation - pad, 3)
        columns = np.tile(np.arange(3) * dilation + second * stride - pad, 3)
        top.scatter(columns, rows, s=area, facecolor=face, edgecolor=color, linewidth=2.2, zorder=3)

        one = np.zeros_like(y)  # the gradient of this output alone reaches exactly the marked pixels
        one[0, 0, 0, second] = 1
        seen, _, _ = gpuconv.conv_backward(one, cache)
        inside = (rows >= 0) & (columns >= 0)
        assert set(zip(rows[inside], columns[inside], strict=True)) == set(zip(*np.nonzero(seen[0, 0]), strict=True))
    top.set(xlim=(-1.6, 6.6), ylim=(6.6, -1.6))
    numbers(bottom, counts[0, 0], limit=9, cmap=drawing.AMOUNT)
    bottom.set(xlim=(-1.6, 6.6), ylim=(5.6, -0.6))
axes[0, 0].set_ylabel("what two outputs see")
axes[1, 0].set_ylabel("seen by how many outputs")
plt.show()

# %% [markdown]
# ## Filters see edges
#
# The same operator on a real array of pixels, one of the pictures that `gpuconv.data` draws. Four filters, each
# looking at all three colours: a blur, an edge detector for each direction, and one that compares a pixel with its
# neighbours. Blue is below 0, red above. `pad=1` keeps the size, and makes an edge of its own where the picture meets the
# zeros around it. `stride=2` computes only every second row and column.

# %%
picture = data.draw_shapes(500, 1).x_train[499]  # (C, H, W), bytes
x = picture[None] / 255.0

edge = np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
bank = {
    "blur": np.full((3, 3), 1 / 9),
    "vertical edges": edge,
    "horizontal edges": edge.T,
    "unlike its neighbours": np.array([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]) / 8,
}
w = np.stack(list(bank.values()))[:, None].repeat(3, axis=1) / 3  # (K, C, R, S), the same for each colour
y, _ = gpuconv.conv_forward(x, w, pad=1)
half, _ = gpuconv.conv_forward(x, w, pad=1, stride=2)
assert y.shape == (1, 4, 32, 32)
assert half.shape == (1, 4, 16, 16)
np.testing.assert_allclose(half, y[:, :, ::2, ::2], rtol=0, atol=1e-15)

fig, axes = plt.subplots(2, 5, figsize=(9.5, 4.2))
axes[0, 0].imshow(picture.transpose(1, 2, 0))
drawing.bare(axes[0, 0], "the picture")
axes[1, 0].set_axis_off()
for k, name in enumerate(bank):
    limit = np.abs(y[0, k]).max()
    colours = {"cmap": "gray"} if name == "blur" else {"cmap": drawing.SIGNED, "vmin": -limit, "vmax": limit}
    for ax, channel, title in ((axes[0, k + 1], y[0, k], name), (axes[1, k + 1], half[0, k], "stride 2: 16 x 16")):
        ax.imshow(channel, **colours)
        drawing.bare(ax, title)
plt.show()

# %% [markdown]
# ## Where the gradient of one output goes
#
# Going back, each output brings a number `dy`, by how much the loss rises with it, and there are two questions.
#
# - **`dx`: who was seen?** Output (p, q) used each pixel of its window once, times a weight. So its `dy` goes back to
#   the same pixels, times the same weights: the filter is stamped onto `dx`. Where stamps overlap, they add up.
# - **`dw`: what was seen?** Each weight was multiplied by one pixel of the window. So the window itself, times `dy`, is
#   added to `dw`.
#
# First row: one output with `dy` = 1. Second row: two of them, with overlapping windows.

# %%
x = rng.integers(0, 6, (1, 1, 5, 5)).astype(float)
w = np.arange(1.0, 10).reshape(1, 1, 3, 3)
y, cache = gpuconv.conv_forward(x, w)

fig, axes = plt.subplots(2, 4, figsize=(9.5, 4.6), width_ratios=[5, 3.2, 5, 3.2])
numbers(axes[0, 0], x[0, 0], "x, what the forward saw", cmap=drawing.AMOUNT)
numbers(axes[1, 0], w[0, 0], "w, the filter", limit=20)
for row, places in zip(axes, ([(0, 0)], [(0, 0), (1, 1)]), strict=True):
    dy = np.zeros_like(y)
    dx_by_hand, dw_by_hand = np.zeros_like(x), np.zeros_like(w)
    for p, q in places:
        dy[0, 0, p, q] = 1
        dx_by_hand[0, 0, p : p + 3, q : q + 3] += w[0, 0]  # a stamp
        dw_by_hand[0, 0] += x[0, 0, p : p + 3, q : q + 3]  # a window
    dx, dw, _ = gpuconv.conv_backward(dy, cache)
    np.testing.assert_array_equal(dx, dx_by_hand)
    np.testing.assert_array_equal(dw, dw_by_hand)

    numbers(row[1], dy[0, 0], "dy", limit=2)
    numbers(row[2], dx[0, 0], "dx: stamps of w", limit=20)
    numbers(row[3], dw[0, 0], "dw: windows of x", limit=10)
    for (p, q), color in zip(places, (drawing.BLUE, drawing.RED), strict=False):
        outline(row[1], p, q, color=color)
        outline(row[2], p, q, 3, 3, color)
for (p, q), color in (((0, 0), drawing.BLUE), ((1, 1), drawing.RED)):
    outline(axes[0, 0], p, q, 3, 3, color)
plt.show()

# %% [markdown]
# ## Max-pooling: the winner takes the gradient
#
# The largest pixel of a window is passed on; the others could be a little larger or smaller and nothing would change,
# so they get no gradient. Average pooling shares it out evenly instead.
#
# **First row:** windows of 3 with stride 2 overlap. The 9 in the middle wins all four windows and gets the sum of their
# gradients. **Second row:** ties. In a window of equal pixels any of them could be the winner; `gpuconv` takes the
# first in row order, so that the gradient of a window is always handed out once and the sum of `dx` is the sum of `dy`.
# Ties are no rarity: after a ReLU, whole windows are 0.

# %%
overlapping = np.array([[1, 2, 0, 3, 1], [4, 0, 5, 2, 0], [2, 6, 9, 1, 3], [0, 1, 4, 7, 2], [3, 2, 0, 1, 5]])
tied = np.array([[0, 0, 3, 1], [0, 0, 1, 3], [2, 5, 0, 0], [5, 2, 0, 4]])

fig, axes = plt.subplots(2, 5, figsize=(9.5, 4.3), width_ratios=[5, 2.6, 2.6, 5, 5])
for row, image, window, stride in zip(axes, (overlapping, tied), (3, 2), (2, 2), strict=True):
    x = image[None, None].astype(float)
    dy = window**2 * np.array([[1.0, 2], [3, 4]]).reshape(1, 1, 2, 2)
    y, cache = gpuconv.max_pool_forward(x, window=window, stride=stride)
    dx = gpuconv.max_pool_backward(dy, cache)
    _, average = gpuconv.average_pool_forward(x, window=window, stride=stride)
    shared = gpuconv.average_pool_backward(dy, average)
    assert dx.sum() == shared.sum() == dy.sum()

    strongest = dx.max()
    numbers(row[0], x[0, 0], f"x, windows of {window}, stride {stride}", cmap=drawing.AMOUNT)
    numbers(row[1], y[0, 0], "y", cmap=drawing.AMOUNT)
    numbers(row[2], dy[0, 0], "dy", limit=strongest)
    numbers(row[3], dx[0, 0], "dx, max-pooling", limit=strongest)
    numbers(row[4], shared[0, 0], "dx, average pooling", limit=strongest)
    for r, s in zip(*np.nonzero(dx[0, 0]), strict=True):
        outline(row[0], r, s, color=drawing.RED)
        outline(row[3], r, s, color=drawing.RED)
assert dx[0, 0, 0, 0] == 4  # four equal zeros: the first one has it all
plt.show()

# %% [markdown]
# ## How to check a gradient that you wrote
#
# Push one input up by a small step and down by the same, and see how the loss moves:
#
# $$\frac{\partial L}{\partial x_i} \approx \frac{L(x + h e_i) - L(x - h e_i)}{2h}$$
#
# Here the loss is a random weighting of the outputs of convolution, GELU and average pooling. The check has two errors
# of its own: the formula's, which shrinks as $h^2$, and rounding, which grows as $u/h$, $u$ being the precision of the
# numbers. The best step lies between them, near $h = u^{1/3}$, and leaves an error near $u^{2/3}$: ten digits agree in
# float64, fewer than five in float32. That is why gradients are checked in float64.


# %%
def relative_errors(dtype, steps):
    """Return, for each step, the error of central differences against backward, relative to the largest gradient."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3, 6, 6)).astype(dtype)
    w = rng.standard_normal((4, 3, 3, 3)).astype(dtype)
    weighting = rng.standard_normal((2, 4, 3, 3)).astype(dtype)

    def forward(x):
        a, conv = gpuconv.conv_forward(x, w, pad=1)
        b, gelu = gpuconv.gelu_forward(a)
        y, pool = gpuconv.average_pool_forward(b, window=2)
        return y, (conv, gelu, pool)

    _, (conv, gelu, pool) = forward(x)
    da = gpuconv.gelu_backward(gpuconv.average_pool_backward(weighting, pool), gelu)
    dx, _, _ = gpuconv.conv_backward(da, conv)

    errors = []
    for h in steps:
        worst = 0.0
        for i in range(0, x.size, 5):
            up, down = x.copy(), x.copy()
            up.flat[i] += dtype(h)
            down.flat[i] -= dtype(h)
            slope = float(((forward(up)[0] - forward(down)[0]) * weighting).sum() / (up.flat[i] - down.flat[i]))
            worst = max(worst, abs(slope - float(dx.flat[i])))
        errors.append(worst / float(np.abs(dx).max()))
    return np.array(errors)


steps = 10.0 ** np.arange(-11, 0.1, 0.5)
double, single = relative_errors(np.float64, steps), relative_errors(np.float32, steps[steps > 1e-6])

fig, ax = plt.subplots(figsize=(6.5, 3.6))
ax.loglog(steps, double, "o-", label="float64")
ax.loglog(steps[steps > 1e-6], single, "s-", label="float32")
ax.loglog(steps[-9:], double[-3] * (steps[-9:] / steps[-3]) ** 2, "--", color=drawing.GREY, label="slope of $h^2$")
ax.set(xlabel="step h", ylabel="largest error / largest gradient", title="Central differences against backward")
ax.legend()
plt.show()

# u^(2/3) is 2e-11 and 2e-5; a hundred times that still tells a right gradient from a wrong one.
assert double.min() < 100 * np.finfo(np.float64).eps ** (2 / 3)
assert single.min() < 100 * np.finfo(np.float32).eps ** (2 / 3)

# %% [markdown]
# `gpuconv.testing.gradcheck` does so for every entry of every array. It chooses the step, and finds out how far a
# difference can be off from what it changes by when the step is doubled. A wrong gradient is named with its array, the
# entry and both values; `gradcheck_layer` does the same for a layer of your own and all its parameters.

# %%
arrays = [rng.integers(-3, 4, shape).astype(float) for shape in ((1, 2, 4, 4), (3, 2, 3, 3), (3,))]
assert testing.gradcheck(gpuconv.conv_forward, arrays, backward=gpuconv.conv_backward)


def forgetful(dy, cache):
    """Return the gradients of a convolution whose last filter is taken for one without bias."""
    dx, dw, db = gpuconv.conv_backward(dy, cache)
    return dx, dw, db * [1, 1, 0]


try:  # a convolution is linear in each of its arrays: a step of 1 is as good as any
    testing.gradcheck(gpuconv.conv_forward, arrays, backward=forgetful, dy=np.ones((1, 3, 2, 2)), h=1.0)
except AssertionError as error:
    print(error)

# %% [markdown]
# ## Read on
#
# `gpuconv/naive/conv.py` and `gpuconv/naive/max_pool.py` are these definitions as plain loops; the tests hold the fast
# code in `gpuconv/cpu` to them. The next notebook does the same for batch normalisation.
