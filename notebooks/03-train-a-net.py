# %% [markdown]
# # Training a net on CIFAR-10
#
# Two nets, both trained by `gpuconv.train`: the three-layer net of the course, to over 65 %, and a small convolutional
# net with batch norm, which gets further with less than a tenth of the weights. Then a look at how they learned, what their first
# layer looks for, and what they take for what.
#
# The pictures come from the folder in `GPUCONV_DATA`, or from the cache that `gpuconv data get` fills; without them
# the notebook draws ten classes of shapes, which are easier. The outputs stored here name the data they are from.

# %%
import dataclasses
import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np

from gpuconv import data, nn, ops, train
from gpuconv.show import drawing

drawing.style()
QUICK = os.environ.get("GPUCONV_NOTEBOOK_QUICK") == "1"  # a few steps on a few drawn shapes: for tests
dataset = data.draw_shapes(1000, 300) if QUICK else data.load("auto", download=False)
runs = tempfile.TemporaryDirectory()
cifar = "airplane" in dataset.classes  # what is claimed about accuracies is claimed about CIFAR-10
names = [name.replace("automobile", "car") for name in dataset.classes]
print(f"{dataset.name}: {len(dataset.y_train):,} training pictures, {len(dataset.y_test):,} for the test")

# %% [markdown]
# ## Three layers
#
# Convolution, ReLU, 2 x 2 max-pooling; a hidden affine layer with ReLU; an affine layer to ten scores. He's initial
# weights, Adam, a learning rate that rises and falls once, pictures mirrored at random. `Config` holds all of it, and its
# preset is the recipe of `gpuconv train --preset three-layer`; here with fewer but larger filters, fewer hidden
# units and six epochs. The last 5,000 training pictures are held out to choose the best epoch; the test pictures are
# looked at once, at the end.

# %%
quick = {"epochs": 2, "validation": 200, "batch_size": 50} if QUICK else {}


def fit(config):
    """Train by a config, as far as QUICK allows; return the Result and the net of its best epoch."""
    config = dataclasses.replace(config, **quick)
    result = train.train(config, folder=f"{runs.name}/{config.preset}", dataset=dataset, progress="none")
    net = train.load_net(result.folder / "best.safetensors")
    print(f"{config.preset}: {net.flat_params.size:,} parameters, best epoch {result.best_epoch} of {config.epochs}")
    assert result.metrics[-1]["train_loss"] < result.metrics[0]["train_loss"]
    print(f"validation {result.validation_accuracy:.1%}, test {result.test_accuracy:.1%} on {result.data}")
    return result, net


three_layer = dataclasses.replace(train.PRESETS["three-layer"], filters=32, window=5, hidden=256, epochs=6)
result_three, net_three = fit(three_layer)
assert result_three.test_accuracy > 0.65 or not cifar
net_three

# %% [markdown]
# ## Further, with fewer weights
#
# Three stages of 3 x 3 convolution, batch norm, pooling and ReLU, with 32, 64 and 128 filters, and one affine layer:
# nearly all weights of the net above were in its hidden layer, which has to learn everything anew for each place of
# the picture. Filters share what they learn between all places. Gradient descent with momentum; training pictures are
# also shifted by up to two pixels.

# %%
result_conv, net_conv = fit(dataclasses.replace(train.PRESETS["convnet"], epochs=6))
assert result_conv.test_accuracy > result_three.test_accuracy + 0.05 or not cifar
assert net_conv.flat_params.size < net_three.flat_params.size / 10
net_conv

# %% [markdown]
# ## How they learned
#
# The three-layer net ends above its validation accuracy on the pictures it trains on: it begins to know them by
# heart. The other sees each picture shifted differently every time and cannot. Its training accuracy even lies below:
# it is measured on those harder pictures, and over an epoch in which the net still improves.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.5))
for result, name, color in ((result_three, "three layers", drawing.RED), (result_conv, "convnet", drawing.BLUE)):
    epochs = [row["epoch"] for row in result.metrics]
    for which, line, marker in (("train", "--", "s"), ("validation", "-", "o")):
        style = {"color": color, "linestyle": line, "marker": marker, "label": f"{name}, {which}"}
        left.plot(epochs, [row[f"{which}_loss"] for row in result.metrics], **style)
        right.plot(epochs, [100 * row[f"{which}_accuracy"] for row in result.metrics], **style)
last_three, last_conv = result_three.metrics[-1], result_conv.metrics[-1]
assert last_three["train_accuracy"] > last_three["validation_accuracy"] or not cifar
assert last_conv["train_accuracy"] < last_conv["validation_accuracy"] or not cifar
left.set(xlabel="epoch", ylabel="loss", xticks=epochs)
right.set(xlabel="epoch", ylabel="accuracy (%)", xticks=epochs)
left.legend()
fig.suptitle(dataset.name)
plt.show()

# %% [markdown]
# ## What the first layer has learned
#
# Twelve of the 32 filters of the three-layer net, those that changed most, drawn as patches of 5 x 5 pixels (grey: a weight
# of 0). The net begins with noise, and at the end it still looks like noise: the first weights were larger than all
# that six epochs added to them. But take the difference, and one sees what was learned: edges of some
# direction, between light and dark or between two colours, and blobs. Noise does not have that structure: the
# differences are alike in neighbouring pixels, the first weights were not. Last row: each filter's answer to a drawn ring.


# %%
def alikeness(filters):
    """Return the correlation between a weight and its right-hand neighbour."""
    return np.corrcoef(filters[..., :-1].ravel(), filters[..., 1:].ravel())[0, 1]


start, end = nn.build(net_three.config).params["conv1.w"], net_three.params["conv1.w"]
learned = end - start
assert (alikeness(learned) > 0.5 and learned.std() < start.std()) or not cifar
assert abs(alikeness(start)) < 0.1
most = np.argsort(-np.square(learned).sum(axis=(1, 2, 3)))[:12]
drawn = data.draw_shapes(1000, 10)
ring = drawn.x_train[[np.flatnonzero(drawn.y_train == drawn.classes.index("ring"))[0]]]
x = ops.augment(ring, mean=dataset.mean, std=dataset.std)
answers, _ = ops.conv_forward(x, end, net_three.params["conv1.b"], pad=2)

fig, axes = plt.subplots(4, 12, figsize=(9.5, 3.3))
for row, filters, name in zip(axes, (start, end, learned), ("first", "last", "difference"), strict=False):
    for ax, k in zip(row, most, strict=True):
        ax.imshow(0.5 + 0.5 * (filters[k] / np.abs(filters[k]).max()).transpose(1, 2, 0))
        drawing.bare(ax)
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
for ax, k in zip(axes[3], most, strict=True):
    limit = np.abs(answers[0, k]).max()
    ax.imshow(answers[0, k], cmap=drawing.SIGNED, vmin=-limit, vmax=limit)
    drawing.bare(ax)
axes[3, 0].set_ylabel("answer", rotation=0, ha="right", va="center")
plt.show()

# %% [markdown]
# ## What it takes for what
#
# All test pictures, shown to the convnet. Each row holds the pictures of one class and adds up to 100 %; off the
# diagonal are the mistakes. Of CIFAR-10, cats and dogs are the hardest to tell apart.

# %%
scores = np.concatenate(
    [
        net_conv.forward(ops.augment(batch, mean=dataset.mean, std=dataset.std))
        for batch in np.array_split(dataset.x_test, max(1, len(dataset.x_test) // 250))
    ]
)
guesses, truth = scores.argmax(axis=1), dataset.y_test
confusion = np.zeros((10, 10))
np.add.at(confusion, (truth, guesses), 1)
share = 100 * confusion / confusion.sum(axis=1, keepdims=True)
assert np.trace(confusion) / len(truth) == result_conv.test_accuracy
mistakes = confusion - np.diag(np.diag(confusion))
assert {names[index] for index in np.unravel_index(mistakes.argmax(), (10, 10))} == {"cat", "dog"} or not cifar

fig, ax = plt.subplots(figsize=(6.6, 5.6))
image = ax.imshow(share, cmap=drawing.AMOUNT, vmin=0, vmax=100)
for (row, column), value in np.ndenumerate(share):
    if round(value):
        ax.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black")
ax.set(xticks=range(10), yticks=range(10), yticklabels=names, xlabel="taken for", ylabel="is")
ax.set_xticklabels(names, rotation=40, ha="right")
ax.grid(False)
ax.set_title(f"{dataset.name}: share of each class (%)")
plt.show()
runs.cleanup()
