# %% [markdown]
# # Batch normalisation
#
# Batch norm gives every channel of a layer's output mean 0 and standard deviation 1, measured over the batch at hand,
# and then lets the net choose another mean and deviation:
#
# $$\hat{x} = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}, \qquad y = \gamma\,\hat{x} + \beta$$
#
# Images `N C H W` have one $\mu$, $\sigma$, $\gamma$ and $\beta$ per channel: all `N H W` values of a channel are taken
# together, since a filter sees every place of an image alike. Rows `N C`, the output of an affine layer, have one per
# column. As in the other notebooks, `gpuconv` computed every number shown, and asserts check the text.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import gpuconv
from gpuconv import data, nn, ops
from gpuconv.show import drawing

drawing.style()
QUICK = os.environ.get("GPUCONV_NOTEBOOK_QUICK") == "1"  # fewer training steps: for tests
drawn = data.draw_shapes(3000, 500)

# %% [markdown]
# ## Before and after
#
# Four filters look at 500 drawn pictures. Pixels are never negative, so the sum of a filter's weights decides where
# its channel lies, and their size how wide it spreads: left. Normalised, all four have the same scale: middle. Each
# keeps its shape, for batch norm only shifts and stretches. $\gamma$ and $\beta$ are trained like weights and can put
# a channel anywhere, where it was before if need be: right.

# %%
pixels = drawn.x_train[:500] / 255.0
sums = np.array([-8.0, -3, 2, 12]).reshape(4, 1, 1, 1)  # of a filter's weights
w = 0.2 * np.random.default_rng(2).standard_normal((4, 3, 3, 3)) + sums / 27
x, _ = gpuconv.conv_forward(pixels, w, pad=1)


def batch_norm(x, gamma, beta, **settings):
    """Normalise with running statistics that nobody looks at."""
    channels = x.shape[1]
    return gpuconv.spatial_batchnorm_forward(x, gamma, beta, np.zeros(channels), np.ones(channels), **settings)


gamma, beta = np.array([0.5, 1.0, 1.5, 2.0]), np.array([-6.0, -2.0, 2.0, 6.0])
normal, _ = batch_norm(x, np.ones(4), np.zeros(4))
moved, _ = batch_norm(x, gamma, beta)
np.testing.assert_allclose(normal.mean(axis=(0, 2, 3)), 0, atol=1e-12)
np.testing.assert_allclose(normal.std(axis=(0, 2, 3)), 1, rtol=1e-3)  # eps makes it a little smaller
np.testing.assert_allclose(moved.mean(axis=(0, 2, 3)), beta, atol=1e-12)

fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.1), sharey=True)
titles = ("x, out of a convolution", r"$\gamma = 1$, $\beta = 0$", r"four $\gamma$ and $\beta$ of our choice")
for ax, values, title in zip(axes, (x, normal, moved), titles, strict=True):
    for channel in range(4):
        density, edges = np.histogram(values[:, channel], bins=np.arange(-12, 12, 0.2), density=True)
        ax.stairs(density, edges, label=f"channel {channel}", linewidth=1.6)
    ax.set(title=title, xlabel="value", xlim=(-11, 11))
axes[0].set(ylabel="density", ylim=(0, 1.1))
axes[2].legend()
plt.show()

# %% [markdown]
# ## In training a picture depends on its company
#
# The mean and deviation come from the batch, so the same picture gives other numbers in another batch: **left**, one
# value of one picture among companions drawn at random, in batches of 4, 16 and 64. The smaller the batch, the more it
# jumps. That is noise; in training it does little harm and may even help.
#
# In use, an answer must not depend on what else is asked. So training keeps running averages on the side,
#
# $$\text{running} \leftarrow 0.9 \cdot \text{running} + 0.1 \cdot \text{batch},$$
#
# and `training=False` normalises with them (red line). **Right:** they start at 0 (mean) and 1 (variance) and need
# some tens of batches to arrive, so a net is worth nothing before. Momentum 0.99 forgets more slowly: smoother, and later.

# %%
rng = np.random.default_rng(0)
one, zero = np.ones(4), np.zeros(4)

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
spread = []
for position, size in enumerate((4, 16, 64)):
    seen = []
    for _ in range(60):
        companions = rng.choice(np.arange(1, 500), size - 1, replace=False)
        y, _ = batch_norm(x[np.append(0, companions)], one, zero)
        seen.append(y[0, 1, 16, 16])
    spread.append(np.std(seen))
    left.scatter(position + rng.uniform(-0.25, 0.25, 60), seen, s=14, alpha=0.6, color=drawing.BLUE)
assert spread[0] > spread[1] > spread[2]

for momentum, color in ((0.9, drawing.BLUE), (0.99, drawing.GREEN)):
    running_mean, running_var, track = np.zeros(4), np.ones(4), []
    batch_means = []
    for _ in range(300):
        batch = x[rng.choice(500, 16, replace=False)]
        gpuconv.spatial_batchnorm_forward(batch, one, zero, running_mean, running_var, momentum=momentum)
        track.append(running_mean[1])
        batch_means.append(batch[:, 1].mean())
    if momentum == 0.9:
        right.plot(batch_means, ".", color="#999999", markersize=4, label="mean of each batch")
        y, _ = gpuconv.spatial_batchnorm_forward(x[:1], one, zero, running_mean, running_var, training=False)
        left.axhline(y[0, 1, 16, 16], color=drawing.RED, label="training=False")
    right.plot(track, color=color, label=f"running mean, momentum {momentum}")
left.set(xticks=range(3), xticklabels=["4", "16", "64"], xlabel="pictures in the batch", ylabel="normalised value")
left.set_title("One value of one picture")
left.legend()
right.set(xlabel="batches seen", ylabel="mean of channel 1", title="Batches of 16")
right.set_ylim(top=0.14)
right.legend(loc="upper right")
plt.show()

# %% [markdown]
# ## Why the gradient has three terms
#
# Changing one $x_i$ moves its own $\hat{x}_i$; it moves the mean, and with it every $\hat{x}$ of the channel; and it moves
# the deviation, which again moves every one. Worked through, with $\overline{\;\cdot\;}$ the mean over the channel:
#
# $$dx = \frac{\gamma}{\sigma}\Big(\underbrace{dy}_{\text{itself}}\;-\;\underbrace{\overline{dy}}_{\text{through the mean}}
# \;-\;\underbrace{\hat{x}\;\overline{dy\,\hat{x}}}_{\text{through the deviation}}\Big)$$
#
# The black dots are the truth, by central differences: only with all three terms do the bars agree with it. And the terms
# have a meaning. Adding a constant to all of $x$ does not change $y$, nor does multiplying all of it by a factor; so
# the gradient must not point in either direction: $\sum dx = 0$ and $\sum dx\,\hat{x} = 0$. The second term takes
# the first direction out of $dy$, the third term the other.

# %%
rng = np.random.default_rng(5)
row = rng.standard_normal((8, 1)) * 2 + 3
dy = rng.standard_normal((8, 1)) + 0.8
eps = 1e-12  # as good as none: multiplying x then truly changes nothing
statistics = {"running_mean": np.zeros(1), "running_var": np.ones(1), "eps": eps}
y, cache = gpuconv.batchnorm_forward(row, np.ones(1), np.zeros(1), **statistics)
dx, _, _ = gpuconv.batchnorm_backward(dy, cache)

h = 1e-5
numeric = np.empty(8)
for i in range(8):
    up, down = row.copy(), row.copy()
    up[i] += h
    down[i] -= h
    high, low = (gpuconv.batchnorm_forward(each, np.ones(1), np.zeros(1), **statistics)[0] for each in (up, down))
    numeric[i] = ((high - low) * dy).sum() / (2 * h)

sigma = row.std()
itself = dy / sigma
through_mean = -dy.mean() / sigma
through_deviation = -y * (dy * y).mean() / sigma
np.testing.assert_allclose(dx, itself + through_mean + through_deviation, rtol=1e-9, atol=1e-12)
np.testing.assert_allclose(dx[:, 0], numeric, rtol=0, atol=1e-8)
assert abs(dx.sum()) < 1e-12
assert abs((dx * y).sum()) < 1e-10

fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.9), sharey=True)
sums = {"dy alone": itself, "and through the mean": itself + through_mean, "and through the deviation": dx}
for ax, (title, bars) in zip(axes, sums.items(), strict=True):
    right_answer = np.allclose(bars[:, 0], numeric)
    ax.bar(range(8), bars[:, 0], color=drawing.BLUE if right_answer else drawing.ORANGE)
    ax.plot(range(8), numeric, "o", color=drawing.BLACK, markersize=5, label="central differences")
    ax.axhline(0, color=drawing.BLACK, linewidth=0.8)
    ax.set(title=title, xlabel="i", xticks=range(8))
axes[0].set_ylabel("dx")
axes[0].legend()
plt.show()

# %% [markdown]
# ## What it is for: signals that neither fade nor explode
#
# Ten layers of convolution and ReLU, with random weights of three sizes. Without batch norm every layer multiplies the
# spread of its input by about the same factor, and ten factors of 1/5 or of 5 leave nothing or everything: left. Only
# one size, He's, happens to be right. With batch norm after each convolution (right) the factor is divided out at once,
# and the three lines fall together. The gradient on its way back has the same need.

# %%
scales = {"He's / 5": 0.2, "He's": 1.0, "5 x He's": 5.0}
start = ops.augment(drawn.x_train[:64], mean=drawn.mean, std=drawn.std)

fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.3), sharey=True)
for ax, with_norm in zip(axes, (False, True), strict=True):
    for (name, scale), marker in zip(scales.items(), "os^", strict=True):
        rng = np.random.default_rng(0)
        signal, spreads = start, []
        for _ in range(10):
            channels = signal.shape[1]
            w = rng.standard_normal((16, channels, 3, 3)) * scale * np.sqrt(2 / (9 * channels))
            signal, _ = gpuconv.conv_forward(signal, w.astype("float32"), pad=1)
            if with_norm:
                vectors = [np.full(16, value, "float32") for value in (1, 0, 0, 1)]
                signal, _ = gpuconv.spatial_batchnorm_forward(signal, *vectors)
            signal, _ = gpuconv.relu_forward(signal)
            spreads.append(float(signal.std()))
        ax.semilogy(range(1, 11), spreads, marker=marker, label=name)
        if with_norm:
            assert 0.5 < min(spreads) <= max(spreads) < 0.7
    ax.set(xlabel="layer", xticks=range(1, 11), title="with batch norm" if with_norm else "without")
axes[0].set_ylabel("standard deviation of the output")
axes[0].legend(title="size of weights")
plt.show()

# %% [markdown]
# ## Does it train?
#
# A small net, three convolutions with pooling and an affine layer, on drawn pictures of ten classes: the same number of
# steps of plain gradient descent at the same learning rate, from first weights of many sizes. The dotted line is a
# guess, $\ln 10$. With batch norm the net learns from every size; without, there is a window to hit. To its left nothing
# is learned, to its right everything is lost (crosses: the loss is far above the picture, or not a number).


# %%
def small_net(scale, with_norm):
    """Return conv - (batch norm) - pool - relu, three times, and an affine layer; weights are He's times scale."""
    layers = []
    for channels, filters in ((3, 8), (8, 16), (16, 32)):
        layers.append(nn.Conv(channels, filters, pad=1, bias=not with_norm, init=scale * np.sqrt(2 / (9 * channels))))
        if with_norm:
            layers.append(nn.BatchNorm(filters))
        layers += [nn.MaxPool(2), nn.Relu()]
    return nn.Net(nn.Sequential(*layers, nn.Flatten(), nn.Affine(32 * 4 * 4, 10, init=0.01)), (3, 32, 32))


def final_loss(net, steps, lr=0.1):
    """Train by plain gradient descent; return the mean loss of the last fifth of the steps."""
    images = ops.augment(drawn.x_train, mean=drawn.mean, std=drawn.std)
    optimiser, losses = nn.SGD(net, momentum=0.0), []
    while len(losses) < steps:
        for batch in data.epoch_batches(len(images), 50, seed=0, epoch=len(losses) // 60):
            loss, dscores = ops.softmax_cross_entropy(net.forward(images[batch], training=True), drawn.y_train[batch])
            net.backward(dscores)
            optimiser.step(lr)
            losses.append(float(loss))
    return np.mean(losses[-steps // 5 :])


steps = 60 if QUICK else 240
sizes = 2.0 ** (np.array([0, 3]) if QUICK else np.array([-5, -3, -2, -1, 0, 1, 2, 3, 5]))
with np.errstate(over="ignore", invalid="ignore"):
    losses = {on: np.array([final_loss(small_net(size, on), steps) for size in sizes]) for on in (False, True)}

fig, ax = plt.subplots(figsize=(7, 3.6))
ax.axhline(np.log(10), color=drawing.BLACK, linestyle=":", linewidth=1.2)
for on, label, marker in ((False, "without", "s"), (True, "with batch norm", "o")):
    color = drawing.BLUE if on else drawing.RED
    shown = np.where(losses[on] < 3, losses[on], np.nan)
    ax.semilogx(sizes, shown, marker=marker, color=color, base=2, label=label)
    lost = sizes[np.isnan(shown)]
    ax.plot(lost, np.full(len(lost), 2.6), "x", color=color, markersize=8, markeredgewidth=2)
ax.set(xlabel="size of the first weights, times He's", ylabel=f"training loss after {steps} steps", ylim=(0, 2.75))
ax.legend(loc="lower left")
plt.show()

assert np.isfinite(losses[True]).all()
assert losses[True].max() < np.log(10)  # all of them learn
assert np.nanmin(losses[True]) < np.nanmin(losses[False])

# %% [markdown]
# ## To remember
#
# - A convolution before batch norm needs no bias: subtracting the mean would take it away again.
# - `training=True` in training, `training=False` in use. Forgetting either is the most common mistake.
# - Batches of a few images make noisy statistics; a training batch of one value per channel has none at all and is refused.
# - In use, batch norm is one multiplication and one addition per channel, which can be folded into the filter before it.
#
# The definition as loops is in `gpuconv/naive/batchnorm.py`. The next notebook trains whole nets.
