# %% [markdown]
# # Own pictures: from a folder to predictions
#
# A folder of pictures, a net trained on it, the same net started from what another has learned, and what it says of
# pictures it has never seen. The pictures are drawn here, so that the notebook needs nothing but itself; to use your
# own, leave out the drawing and put your folder in the place of `pictures/`.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

import gpuconv
from gpuconv import data, train
from gpuconv.show import drawing

drawing.style()
QUICK = os.environ.get("GPUCONV_NOTEBOOK_QUICK") == "1"  # few pictures and epochs: for tests
os.chdir(tempfile.mkdtemp())  # leave this line out to keep pictures and runs
rng = np.random.default_rng(0)

# %% [markdown]
# ## A folder for each class
#
# Boats, fish, houses and trees in any two colours, anywhere, on any ground, with noise: 40 of each to learn from, 50 to
# test. The folders are `pictures/train/boat`, `pictures/test/boat` and so on. A folder without `train` and `test` in it
# works, too: a fifth of it becomes the test, the same pictures each time.

# %%
CLASSES = ("boat", "fish", "house", "tree")


def draw(name):
    """Return a picture of a class."""
    width, height = rng.integers(80, 101, 2).tolist()
    ground, first, second = (tuple(rng.integers(0, 256, 3).tolist()) for _ in range(3))
    picture = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(picture)
    scale = rng.uniform(0.45, 0.65)
    left, top = rng.uniform(0, width - 100 * scale), rng.uniform(0, height - 100 * scale)

    def at(*points):
        return [(left + scale * x, top + scale * y) for x, y in points]

    if name == "boat":
        pen.polygon(at((5, 65), (95, 65), (75, 90), (25, 90)), first)
        pen.polygon(at((50, 10), (50, 60), (90, 60)), second)
    elif name == "fish":
        pen.ellipse(at((5, 30), (75, 70)), first)
        pen.polygon(at((65, 50), (95, 25), (95, 75)), second)
    elif name == "house":
        pen.rectangle(at((15, 45), (85, 95)), first)
        pen.polygon(at((5, 45), (50, 5), (95, 45)), second)
    else:
        pen.rectangle(at((42, 60), (58, 95)), first)
        pen.ellipse(at((15, 5), (85, 70)), second)
    noisy = np.asarray(picture) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


for part, count in (("train", 12 if QUICK else 40), ("test", 5 if QUICK else 50)):
    for name in CLASSES:
        folder = Path("pictures", part, name)
        folder.mkdir(parents=True)
        for number in range(count):
            draw(name).save(folder / f"{number}.png")

# %% [markdown]
# `data.load` reads them. Pictures of several sizes need one: `image_size=32` takes the largest square in the middle of
# each and scales it.

# %%
dataset = data.load("pictures/", image_size=32)
dataset

# %% [markdown]
# ## A net of its own
#
# 160 pictures are few, so the net is small. `Config` shows what differs from its preset; 20 pictures are held out to choose the
# best epoch. `train.train` would show its epochs one by one; `progress="none"` keeps this page short.

# %%
settings = {
    "data": "pictures/",
    "image_size": 32,
    "validation": 4 if QUICK else 20,
    "epochs": 2 if QUICK else 25,
    "batch_size": 20,
    "lr": 0.02,
}
config = train.Config(widths=(16, 32, 64), **settings)
config

# %%
alone = train.train(config, name="alone", progress="none")
alone

# %% [markdown]
# ## Fine-tuning: started from what another net has learned
#
# Edges and corners are alike in all pictures. So first the same net learns something of which there is plenty: shapes
# that `gpuconv` draws (discs, stars, stripes, ...). Then `weights=` starts a new run from it: layers are taken by their names, and a
# head that knows other classes is drawn anew. Settings, data and schedule are those of the new run.

# %%
shapes = data.draw_shapes(500 if QUICK else 4000, 100 if QUICK else 500)
recipe = train.Config(widths=(16, 32, 64), epochs=1 if QUICK else 5, lr=0.05, batch_size=50, validation=100)
learned = train.train(recipe, dataset=shapes, name="shapes", progress="none")
print(f"{len(shapes.classes)} shapes: test accuracy {learned.test_accuracy:.1%}")

tuned = train.train(train.Config(weights=str(learned.folder), **settings), name="tuned", progress="none")
comparison = train.compare_runs([train.Run(alone.folder), train.Run(tuned.folder)])
for row in comparison.rows:
    print(f"{row['name']:8} test {row['test_accuracy']:.1%} +- {row['standard_error']:.1%}")
(pair,) = comparison.pairs
print(f"only the tuned one knew {pair['only_second']}, only the other {pair['only_first']}: p = {pair['p']:.2g}")
assert tuned.test_accuracy > alone.test_accuracy or QUICK

# %% [markdown]
# The p is that of McNemar's test: how often pure chance would part 200 pictures so unevenly. `print(comparison)` shows
# more, and `train.Run` everything that lies in a run's folder: its curves, for one.

# %%
run = train.Run(tuned.folder)
run.plot()

# %% [markdown]
# ## What it takes for what

# %%
run.evaluate()

# %% [markdown]
# ## Predictions
#
# `gpuconv.load` takes the folder of a run, or one of its checkpoints, and needs nothing else: the names of the classes, the
# size and how pictures are normalised are in the file. `predict` takes paths of pictures and of folders, or an array.

# %%
Path("new").mkdir()
for number, name in enumerate(rng.permutation(CLASSES * 2)):
    draw(name).save(f"new/{number}.png")

net = gpuconv.load(tuned.folder)
found = net.predict("new")

fig, axes = plt.subplots(1, len(found), figsize=(9.5, 1.9))
for ax, prediction in zip(axes, found, strict=True):
    ax.imshow(Image.open(prediction.name))
    drawing.bare(ax, f"{prediction.label}\n{prediction.probability:.0%}")
plt.show()

# %% [markdown]
# ## The same in a terminal
#
# ```sh
# gpuconv train --data shapes --widths 16,32,64 --name shapes
# gpuconv train --data pictures/ --image-size 32 --epochs 25 --batch-size 20 --lr 0.02 --widths 16,32,64 --name alone
# gpuconv train --data pictures/ --image-size 32 --epochs 25 --batch-size 20 --lr 0.02 --weights runs/shapes-1 --name tuned
# gpuconv compare runs/alone-1 runs/tuned-1
# gpuconv predict runs/tuned-1 new/ --save predictions.png
# ```
