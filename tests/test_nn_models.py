"""The two nets: gradients, PyTorch beside them, memory formats, and that they learn."""

import numpy as np
import pytest
from compare import assert_same, normal, whole
from nn_checks import assert_near

import gpuconv
from gpuconv import nn, testing
from gpuconv.errors import ArgTypeError, GpuconvError, ParamError, ShapeError
from gpuconv.random import Stream, generator


def tiny_three_layer(**settings):
    settings = {"input_shape": (2, 4, 6), "filters": 3, "window": 3, "hidden": 4, "classes": 3} | settings
    return nn.ThreeLayerConvNet(weight_scale=0.5, dtype="float64", **settings)


def tiny_conv_net(**settings):
    settings = {"input_shape": (2, 8, 4), "classes": 3, "dtype": "float64"} | settings
    return nn.ConvNet(3, 4, **settings)


TINY = {"three_layer": tiny_three_layer, "conv_net": tiny_conv_net}
each_tiny_net = pytest.mark.parametrize("make", TINY.values(), ids=TINY.keys())


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def backward(net, x, dscores, step=0):
    """Return (scores, copy of the flat gradients)."""
    scores = net.forward(x, training=True, step=step)
    net.backward(dscores)
    return scores, net.flat_grads.copy()


# Gradients ----------------------------------------------------------------------------------------------------------


@each_tiny_net
def test_all_gradients_are_central_differences(rng, make):
    net, x, labels = make(), normal(rng, (4, *make().input_shape)), np.array([0, 2, 1, 1])
    net.flat_params[net.decayed :] += 0.2 * normal(rng, net.flat_params[net.decayed :].shape)

    def loss(flat_params):
        net.flat_params[...] = flat_params
        return gpuconv.softmax_cross_entropy(net.forward(x, training=True), labels)[0]

    _, dscores = gpuconv.softmax_cross_entropy(net.forward(x, training=True), labels)
    net.backward(dscores)
    assert [name for name, gradient in net.grads.items() if np.abs(gradient).max() < 1e-3] == []  # which shows nothing
    assert testing.gradcheck(loss, [net.flat_params.copy()], [net.flat_grads.copy()])


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 8, 8)], ids=str)
def test_max_pool_and_relu_commute_to_the_last_bit(rng, shape):
    x = whole(rng, shape, largest=1) * whole(rng, (*shape[:2], 1, 1), largest=1)  # ties, zeros, windows below zero
    x[0, 0, :2, :2] = [[-3, -1], [-1, -2]]
    dy = normal(rng, (*shape[:2], shape[2] // 2, shape[3] // 2))
    pool_first, relu_first = nn.Sequential(nn.MaxPool(), nn.Relu()), nn.Sequential(nn.Relu(), nn.MaxPool())
    assert_same(pool_first.forward(x, training=True), relu_first.forward(x, training=True))
    dx = pool_first.backward(dy)
    assert_same(dx, relu_first.backward(dy))
    assert not dx[0, 0, :2, :2].any()


def test_conv_net_equals_the_net_with_relu_before_the_pool(rng):
    net = tiny_conv_net()
    other = nn.Net(
        nn.Sequential(
            nn.Conv(2, 3, pad=1, bias=False), nn.BatchNorm(3), nn.Relu(), nn.MaxPool(2),
            nn.Conv(3, 4, pad=1, bias=False), nn.BatchNorm(4), nn.Relu(), nn.MaxPool(2),
            nn.Flatten(), nn.Affine(8, 3, init="xavier"),
        ),
        (2, 8, 4), dtype="float64",
    )  # fmt: skip
    assert_same(net.flat_params, other.flat_params)
    x, dscores = whole(rng, (5, 2, 8, 4)), normal(rng, (5, 3))
    for mine, theirs in zip(backward(net, x, dscores), backward(other, x, dscores), strict=True):
        assert_same(mine, theirs)


# Shapes and settings ------------------------------------------------------------------------------------------------


def test_three_layer_net_has_the_shapes_of_the_course():
    net = nn.ThreeLayerConvNet()
    assert {name: array.shape for name, array in net.params.items()} == {
        "conv1.w": (32, 3, 7, 7), "conv1.b": (32,), "affine1.w": (8192, 100), "affine1.b": (100,),
        "affine2.w": (100, 10), "affine2.b": (10,),
    }  # fmt: skip
    for index, name in enumerate(("conv1.w", "affine1.w", "affine2.w")):
        w = net.params[name]
        assert_same(w, 1e-3 * generator(0, Stream.INIT, index).standard_normal(w.shape), dtype="float32")
    assert not net.flat_params[net.decayed :].any()
    he = nn.ThreeLayerConvNet(weight_scale=None).params["affine1.w"]
    assert abs(he.var() * 8192 / 2 - 1) < 0.01


def test_three_layer_net_starts_at_the_loss_of_guessing(rng):
    net = nn.ThreeLayerConvNet()
    scores = net.forward(normal(rng, (20, 3, 32, 32), "float32"))
    loss, _ = gpuconv.softmax_cross_entropy(scores, np.arange(20) % 10)
    assert abs(float(loss) - np.log(10)) < 1e-4


def test_conv_net_has_the_documented_shapes():
    net = nn.ConvNet(4, 6, 8, input_shape=(3, 16, 24), classes=7)
    assert {name: array.shape for name, array in net.params.items()} == {
        "conv1.w": (4, 3, 3, 3), "bn1.gamma": (4,), "bn1.beta": (4,),
        "conv2.w": (6, 4, 3, 3), "bn2.gamma": (6,), "bn2.beta": (6,),
        "conv3.w": (8, 6, 3, 3), "bn3.gamma": (8,), "bn3.beta": (8,),
        "affine1.w": (48, 7), "affine1.b": (7,),
    }  # fmt: skip
    stages = [f"{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "bn", "pool", "relu")]
    assert list(net.body.layers) == [*stages, "flatten1", "affine1"]
    assert net.decayed == 4 * 27 + 6 * 36 + 8 * 54 + 48 * 7
    assert list(net.state) == [f"bn{i}.running_{what}" for i in (1, 2, 3) for what in ("mean", "var")]


BAD = {
    "height_not_even": (lambda: nn.ThreeLayerConvNet((3, 31, 32)), ShapeError, "even height"),
    "width_not_even": (lambda: nn.ThreeLayerConvNet((3, 32, 31)), ShapeError, "32x31"),
    "even_window_shrinks_the_image": (lambda: nn.ThreeLayerConvNet(window=4), ShapeError, "31x31"),
    "two_axes": (lambda: nn.ThreeLayerConvNet((32, 32)), ShapeError, "C, H, W"),
    "no_hidden_units": (lambda: nn.ThreeLayerConvNet(hidden=0), ParamError, "hidden"),
    "filters_float": (lambda: nn.ThreeLayerConvNet(filters=3.0), ArgTypeError, "filters"),
    "weight_scale_negative": (lambda: nn.ThreeLayerConvNet(weight_scale=-1), ParamError, "weight_scale"),
    "no_stages": (nn.ConvNet, ParamError, "at least one stage"),
    "too_many_halvings": (lambda: nn.ConvNet(4, 4, 4, input_shape=(3, 32, 12)), ShapeError, "multiples of 8"),
    "width_zero": (lambda: nn.ConvNet(4, 0), ParamError, "widths"),
    "widths_as_a_list": (lambda: nn.ConvNet([4, 8]), ArgTypeError, "widths"),
    "no_classes": (lambda: nn.ConvNet(4, classes=0), ParamError, "classes"),
}


@pytest.mark.parametrize(("make", "error", "word"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused_at_construction(make, error, word):
    with pytest.raises(error, match=word) as caught:
        make()
    assert isinstance(caught.value, GpuconvError)


def test_an_even_window_is_fine_where_the_pool_still_divides():
    assert nn.ThreeLayerConvNet((1, 7, 5), filters=2, window=4, hidden=3).params["affine1.w"].shape == (12, 3)


# Memory formats -----------------------------------------------------------------------------------------------------


def test_channels_last_gives_the_same_bits_where_sums_are_exact(rng):
    net = tiny_three_layer()
    net.flat_params[...] = whole(rng, net.flat_params.shape)
    x, dscores = whole(rng, (3, 2, 4, 6)), whole(rng, (3, 3))
    scores, grads = backward(net, x, dscores)
    last_scores, last_grads = backward(net, channels_last(x), dscores)
    assert_same(last_scores, scores)
    assert_same(last_grads, grads)
    assert_same(net.forward(channels_last(x)), scores)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_channels_last_gives_the_same_in_a_conv_net(rng, dtype):
    net = nn.ConvNet(8, 8, input_shape=(3, 8, 8), dtype=dtype)
    x, dscores = normal(rng, (16, 3, 8, 8), dtype), normal(rng, (16, 10), dtype)
    scores, grads = backward(net, x, dscores)
    last_scores, last_grads = backward(net, channels_last(x), dscores)
    # Longest sum: a channel of the batch, 16 x 8 x 8.  Sums in a row: 3 matrix products and 2 batch norms (mean and
    # variance each), once forward, once more back.
    assert_near(last_scores, scores, terms=1024, sums=7)
    assert_near(last_grads, grads, terms=1024, sums=14)
    assert_same(last_scores.argmax(1), scores.argmax(1))


# PyTorch ------------------------------------------------------------------------------------------------------------


def torch_twin(net):
    """Return the same net made of PyTorch's layers, with the same parameters, in order of net.body."""
    torch = pytest.importorskip("torch")
    modules = []
    for _, layer in net.body.leaves():
        s = layer.settings
        if isinstance(layer, nn.Conv):
            module = torch.nn.Conv2d(s["in_channels"], s["filters"], s["window"], padding=s["pad"], bias=s["bias"])
        elif isinstance(layer, nn.Affine):
            module = torch.nn.Linear(s["in_features"], s["out_features"])
        elif isinstance(layer, nn.BatchNorm):
            module = torch.nn.BatchNorm2d(s["channels"], eps=s["eps"], momentum=1 - s["momentum"])
        else:
            module = {"Relu": torch.nn.ReLU, "MaxPool": lambda: torch.nn.MaxPool2d(2), "Flatten": torch.nn.Flatten}[
                type(layer).__name__
            ]()
        modules.append(module)
    twin = torch.nn.Sequential(*modules).double()
    arrays = [(leaf, name) for _, leaf in net.body.leaves() for name in leaf.params]
    with torch.no_grad():
        for (leaf, name), parameter in zip(arrays, twin.parameters(), strict=True):
            w = torch.from_numpy(leaf.params[name])
            parameter.copy_(w.T if isinstance(leaf, nn.Affine) and name == "w" else w)
    return torch, twin, arrays


@each_tiny_net
def test_net_equals_the_same_net_in_pytorch(rng, make):
    net = make()
    net.flat_params[net.decayed :] += 0.2 * normal(rng, net.flat_params[net.decayed :].shape)
    torch, twin, arrays = torch_twin(net)
    x, labels = normal(rng, (6, *net.input_shape)), np.arange(6) % 3
    for _ in range(2):  # twice: the running statistics move on
        scores = net.forward(x, training=True)
        loss, dscores = gpuconv.softmax_cross_entropy(scores, labels)
        net.backward(dscores)
        twin_scores = twin(torch.from_numpy(x))
        twin_loss = torch.nn.functional.cross_entropy(twin_scores, torch.from_numpy(labels))
        twin.zero_grad()
        twin_loss.backward()
    # Longest sum: a channel of the batch, 6 x 8 x 4.
    assert_near(scores, twin_scores.detach().numpy(), terms=192, sums=7)
    assert abs(float(loss) - twin_loss.item()) < 1e-13
    for (leaf, name), parameter in zip(arrays, twin.parameters(), strict=True):
        grad = parameter.grad.numpy()
        assert_near(
            leaf.grads[name], grad.T if isinstance(leaf, nn.Affine) and name == "w" else grad, terms=192, sums=14
        )
    for leaf, module in zip((leaf for _, leaf in net.body.leaves()), twin, strict=True):
        if isinstance(leaf, nn.BatchNorm):
            assert_near(leaf.state["running_mean"], module.running_mean.numpy(), terms=192, sums=7)
            # PyTorch keeps the unbiased variance, n / (n - 1) times ours, and 0.81 is left of the initial 1.
            n = 6 * 8 * 4 if leaf is net.body.layers["bn1"] else 6 * 4 * 2
            unbiased = 0.81 + (leaf.state["running_var"] - 0.81) * n / (n - 1)
            assert_near(unbiased, module.running_var.numpy(), terms=192, sums=7)


# Learning -----------------------------------------------------------------------------------------------------------

LEARNERS = {
    "conv_net": (lambda: nn.ConvNet(8, 16, input_shape=(3, 8, 8)), lambda net: nn.SGD(net, nesterov=True), 0.05),
    "three_layer": (
        lambda: nn.ThreeLayerConvNet((3, 8, 8), 8, 3, 32, 10, 5e-2), nn.Adam, 5e-3
    ),
    "residual_net_with_dropout": (
        lambda: nn.Net(
            nn.Sequential(
                nn.Conv(3, 16, pad=1), nn.Residual(nn.Sequential(nn.BatchNorm(16), nn.Relu(), nn.Conv(16, 16, pad=1))),
                nn.MaxPool(), nn.Flatten(), nn.Dropout(0.1), nn.Affine(256, 10),
            ),
            (3, 8, 8),
        ),
        nn.AdamW, 5e-3,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "make_optimiser", "lr"), LEARNERS.values(), ids=LEARNERS.keys())
def test_a_tiny_net_learns_ten_random_images_by_heart(make, make_optimiser, lr):
    draws = generator(0, Stream.DATA)
    x, labels = draws.standard_normal((10, 3, 8, 8)).astype("float32"), draws.permutation(10)
    net = make()
    optimiser = make_optimiser(net)
    for step in range(40):
        _, dscores = gpuconv.softmax_cross_entropy(net.forward(x, training=True, step=step), labels)
        net.backward(dscores)
        optimiser.step(lr)
    assert (net.forward(x).argmax(1) == labels).mean() > 0.95


def tiny_run():
    """Return (net, x, labels, schedule) of a run in float64 that its seeds alone decide."""
    draws = generator(1, Stream.DATA)
    x, labels = draws.standard_normal((16, 3, 8, 8)), draws.integers(0, 5, 16)
    net = nn.ConvNet(4, 6, input_shape=(3, 8, 8), classes=5, seed=2, dtype="float64")
    return net, x, labels, nn.OneCycle(0.1, total=8, warmup=2)


def losses(count):
    """Return the first losses of the tiny run."""
    net, x, labels, schedule = tiny_run()
    optimiser = nn.SGD(net, nesterov=True, weight_decay=5e-4)
    seen = []
    for step in range(count):
        loss, dscores = gpuconv.softmax_cross_entropy(net.forward(x, training=True, step=step), labels)
        net.backward(dscores)
        optimiser.step(schedule(step))
        seen.append(float(loss))
    return seen


def test_first_losses_are_the_recorded_ones():
    # Recorded from one run of losses(5) on the NumPy backend, after every test above had passed.  They may change only
    # with a change of what is computed (draws, initial weights, layers, update, schedule), never with how.
    np.testing.assert_allclose(losses(5), RECORDED, rtol=1e-10)


RECORDED = [3.0171585571294, 2.8545503061333, 1.6551014597102, 1.6072647008379, 1.4414713368791]


def test_the_same_run_in_pytorch_has_the_same_losses():
    net, x, labels, schedule = tiny_run()
    torch, twin, _ = torch_twin(net)
    weights = [parameter for parameter in twin.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in twin.parameters() if parameter.ndim == 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    seen = []
    for step in range(5):
        for group in optimiser.param_groups:
            group["lr"] = schedule(step)
        loss = torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    np.testing.assert_allclose(losses(5), seen, rtol=1e-11)  # as in assert_near, over five steps
