# %% [markdown]
# # Taking a blur away
#
# No network here: a picture was blurred and has some noise, the blur is known, and the picture is wanted back. That is
# a least-squares problem, its operator is a convolution, and `gpuconv` has the two things that gradient descent asks
# for: the operator and its adjoint. With CuPy arrays in the place of NumPy's, the same lines run on a GPU.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpuconv
from gpuconv import data
from gpuconv.show import drawing

drawing.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## The blur is a convolution
#
# Four pictures that `gpuconv.data` draws, side by side as one, are blurred by a Gaussian window of 7 x 7. `groups=3`
# keeps the colours apart, each with the same kernel, and `pad=3` keeps the size; outside the picture all is 0. So the
# picture is shifted to have mean 0, which makes the outside a middle grey. Then comes noise.

# %%
shapes = data.draw_shapes(40, 1).x_train[:40] / 255.0
strip = np.concatenate(list(shapes[[3, 11, 21, 33]]), axis=2)[None]  # (1, 3, 32, 128)
truth = strip - 0.5

offsets = np.arange(-3, 4)
bell = np.exp(-(offsets**2) / (2 * 1.3**2))
kernel = np.outer(bell, bell) / bell.sum() ** 2
w = np.tile(kernel, (3, 1, 1, 1))  # (K, C / groups, R, S): a filter for each colour


def blur(x):
    """Return A x."""
    return gpuconv.conv_forward(x, w, pad=3, groups=3)[0]


noise = 0.003
y = blur(truth)
y += noise * rng.standard_normal(y.shape)

# %% [markdown]
# ## Its adjoint is the backward
#
# For any operator $A$ there is one $A^T$ with $\langle A x, y \rangle = \langle x, A^T y \rangle$. Backward computes
# just that: given `dy`, it returns $A^T$ `dy` as `dx`. The gradient of the weights nobody needs: `weight_grad=False`.
# The cache of one forward serves every call, because $A$ is linear and `dx` does not depend on x.

# %%
_, cache = gpuconv.conv_forward(truth, w, pad=3, groups=3)


def adjoint(y):
    """Return A^T y."""
    return gpuconv.conv_backward(y, cache, weight_grad=False)[0]


u, v = rng.standard_normal(truth.shape), rng.standard_normal(y.shape)
left, right = (blur(u) * v).sum(), (u * adjoint(v)).sum()
print(f"<A u, v> = {left:.12f}\n<u, A^T v> = {right:.12f}")
assert abs(left - right) < 1e-12 * np.linalg.norm(u) * np.linalg.norm(v)

# %% [markdown]
# ## How far a step may go
#
# Wanted is the x that minimises
#
# $$f(x) = \tfrac12 \lVert A x - y \rVert^2 + \tfrac{\lambda}{2} \lVert D x \rVert^2, \qquad
# \nabla f(x) = A^T (A x - y) + \lambda D^T D x$$
#
# where $D x$ are the differences between neighbours, two more filters: without that term the noise is blown up where
# the blur left next to nothing. Descent with step $1 / L$ never goes up if $L$ is the largest eigenvalue of
# $A^T A + \lambda D^T D$; multiplying a random picture by that operator again and again shows it.

# %%
differences = np.zeros((2, 1, 3, 3))
differences[0, 0, 1, 1:] = differences[1, 0, 1:, 1] = (-1, 1)  # to the right neighbour, to the lower one
d = np.tile(differences, (3, 1, 1, 1))  # two filters for each colour
_, differences_cache = gpuconv.conv_forward(truth, d, pad=1, groups=3)


def roughness(x):
    """Return D^T D x."""
    across, _ = gpuconv.conv_forward(x, d, pad=1, groups=3)
    return gpuconv.conv_backward(across, differences_cache, weight_grad=False)[0]


penalty = 0.0005
x = rng.standard_normal(truth.shape)
for _ in range(30):
    x /= np.linalg.norm(x)
    image = adjoint(blur(x)) + penalty * roughness(x)
    L = (x * image).sum()
    x = image
print(f"largest eigenvalue: {L:.3f}")
L *= 1.05  # the estimate comes from below

# %% [markdown]
# ## Descent, and descent with momentum
#
# Plain steps $x \leftarrow x - \nabla f(x) / L$ do well on what the blur kept and crawl on what it all but removed.
# Nesterov's method takes the gradient a little further along the way it came, and needs about the square root of the
# steps. PSNR says how near a picture is to the true one: $-10 \log_{10}$ of the mean squared difference, in decibels.


# %%
def psnr(x):
    return -10 * np.log10(np.mean((x - truth) ** 2))


def loss(x):
    across, _ = gpuconv.conv_forward(x, d, pad=1, groups=3)
    return ((blur(x) - y) ** 2).sum() / 2 + penalty * (across**2).sum() / 2


def descend(steps, momentum):
    """Return the last picture, and the loss and PSNR before each step and after the last."""
    x = ahead = y
    losses, qualities = [loss(x)], [psnr(x)]
    for step in range(steps):
        gradient = adjoint(blur(ahead) - y) + penalty * roughness(ahead)
        before, x = x, ahead - gradient / L
        ahead = x + (step / (step + 3) if momentum else 0) * (x - before)
        losses.append(loss(x))
        qualities.append(psnr(x))
    return x, np.array(losses), np.array(qualities)


_, plain_losses, plain_psnr = descend(150, momentum=False)
restored, fast_losses, fast_psnr = descend(150, momentum=True)
assert (np.diff(plain_losses) <= 0).all()
assert fast_losses[-1] < plain_losses[-1]
print(f"PSNR: blurred {psnr(y):.2f} dB, restored {psnr(restored):.2f} dB")
assert psnr(restored) > psnr(y) + 3

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2))
for label, losses, qualities in (("plain", plain_losses, plain_psnr), ("with momentum", fast_losses, fast_psnr)):
    left.semilogy(losses, label=label)
    right.plot(qualities, label=label)
left.set(xlabel="step", ylabel="f(x)", title="What is minimised")
right.set(xlabel="step", ylabel="PSNR in dB", title="How near the picture is to the true one")
left.legend()
plt.show()

# %%
fig, axes = plt.subplots(3, 1, figsize=(8, 6.6))
for ax, picture, title in zip(
    axes,
    (truth, y, restored),
    ("the true picture", f"blurred, with noise: {psnr(y):.1f} dB", f"restored: {psnr(restored):.1f} dB"),
    strict=True,
):
    ax.imshow(np.clip(picture[0] + 0.5, 0, 1).transpose(1, 2, 0))
    drawing.bare(ax, title)
plt.show()

# %% [markdown]
# The edges are back, the fine grain of the true picture is not: what the blur removed altogether nothing brings back,
# and the penalty prefers a smooth guess to a noisy one. A smaller penalty gives sharper edges and more noise.
