"""The nets for strong runs: gradients, PyTorch beside them, shapes, whitening, configs, and that they learn."""

import numpy as np
import pytest
from compare import assert_same, normal
from nn_checks import assert_near

import gpuconv
from gpuconv import nn
from gpuconv.errors import ArgTypeError, ParamError, ShapeError
from gpuconv.nn.models.speedrun import whitening_filters
from gpuconv.random import Stream, generator

# name -> (net, widths for a test, image size, images, BatchNorm layers)
NETS = {
    "vgg": (nn.VGG, (4, 4, 6, 5), (2, 8, 12), 5),
    "resnet9": (nn.ResNet9, (3, 4, 4, 5), (2, 8, 9), 6),
    "resnet18": (nn.ResNet18, (4, 4, 5, 6), (2, 9, 8), 12),
    "speedrun": (nn.SpeedrunNet, (5, 6, 4), (2, 9, 11), 12),
}
each_net = pytest.mark.parametrize(("cls", "widths", "shape", "count"), NETS.values(), ids=NETS.keys())


def made(cls, widths, shape, rng, **settings):
    """Return a net in float64 whose parameters, identities too, are off their special values."""
    net = cls(*widths, input_shape=shape, classes=3, dtype="float64", **settings)
    net.flat_params += 0.2 * normal(rng, net.flat_params.shape)
    net.prepare(normal(rng, (20, *shape)))
    return net


# Gradients ----------------------------------------------------------------------------------------------------------


@each_net
def test_gradients_are_central_differences_along_a_direction_of_each_array(rng, cls, widths, shape, count):
    net = made(cls, widths, shape, rng)
    x, labels = normal(rng, (count, *shape)), np.arange(count) % 3

    def loss():
        return float(gpuconv.softmax_cross_entropy(net.forward(x, training=True), labels)[0])

    _, dscores = gpuconv.softmax_cross_entropy(net.forward(x, training=True), labels)
    net.backward(dscores)
    grads = {name: grad.copy() for name, grad in net.grads.items()}
    assert len(grads) > 8
    h = 1e-5
    names = list(net.params)
    for name in names if len(names) < 30 else rng.choice(names, 24, replace=False):
        array = net.params[name]
        direction = normal(rng, array.shape)
        direction /= np.linalg.norm(direction)
        before = array.copy()
        slopes = []
        for step in (h, 2 * h):
            array[...] = before + step * direction
            above = loss()
            array[...] = before - step * direction
            slopes.append((above - loss()) / (2 * step))
        array[...] = before
        # Two steps: their difference is 3 h^2 times the third derivative, of which the better one has a third.
        # Rounding of the loss, 1e-15 or so, is divided by 2 h.
        off = abs(slopes[1] - slopes[0]) + 1e-9
        assert off < 1e-6, name
        assert abs((grads[name] * direction).sum() - slopes[0]) < off, name
        assert np.abs(grads[name]).max() > 1e-4, f"{name}: a gradient of zeros shows nothing"


# PyTorch ------------------------------------------------------------------------------------------------------------


def twin_of(layer, torch, modules):
    """Return the module of PyTorch that does what a layer does; modules collects (leaf, module)."""
    s = layer.settings

    class Sum(torch.nn.Module):
        def __init__(self, body, shortcut):
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    class Times(torch.nn.Module):
        def forward(self, x):
            return x * s["factor"]

    if isinstance(layer, nn.Sequential):
        return torch.nn.Sequential(*(twin_of(child, torch, modules) for child in layer.layers.values()))
    if isinstance(layer, nn.Residual):
        shortcut = torch.nn.Identity() if layer.shortcut is None else twin_of(layer.shortcut, torch, modules)
        return Sum(twin_of(layer.body, torch, modules), shortcut)
    match type(layer).__name__:
        case "Conv":
            size = s["in_channels"], s["filters"], s["window"]
            module = torch.nn.Conv2d(*size, stride=s["stride"], padding=s["pad"], bias=s["bias"])
        case "Affine":
            module = torch.nn.Linear(s["in_features"], s["out_features"], bias=s["bias"])
        case "BatchNorm":
            module = torch.nn.BatchNorm2d(s["channels"], eps=s["eps"], momentum=1 - s["momentum"])
        case "MaxPool":
            module = torch.nn.MaxPool2d(s["window"])
        case "GlobalAveragePool":
            module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        case "Scale":
            module = Times()
        case name:
            module = {"Relu": torch.nn.ReLU, "Gelu": torch.nn.GELU, "Flatten": torch.nn.Flatten}[name]()
    modules.append((layer, module))
    return module


THEIR_NAMES = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}


@each_net
def test_net_equals_the_same_net_in_pytorch(rng, cls, widths, shape, count):
    torch = pytest.importorskip("torch")
    net = made(cls, widths, shape, rng)
    modules = []
    twin = twin_of(net.body, torch, modules).double()
    for leaf, module in modules:
        for name, array in (leaf.params | leaf.state).items():
            if name in THEIR_NAMES:
                w = torch.from_numpy(array.T.copy() if isinstance(leaf, nn.Affine) else array.copy())
                getattr(module, THEIR_NAMES[name]).data.copy_(w)
    x, labels = normal(rng, (count, *shape)), np.arange(count) % 3
    for _ in range(2):  # twice: the running statistics move on
        scores = net.forward(x, training=True)
        _, dscores = gpuconv.softmax_cross_entropy(scores, labels)
        net.backward(dscores)
        twin_scores = twin(torch.from_numpy(x))
        twin.zero_grad()
        torch.nn.functional.cross_entropy(twin_scores, torch.from_numpy(labels)).backward()
    # Longest sum: a channel of the batch.  Sums in a row: a product and a batch norm (mean, variance) for each layer.
    terms, sums = count * shape[1] * shape[2], 3 * sum(leaf.trainable for leaf, _ in modules)
    assert_near(scores, twin_scores.detach().numpy(), terms=terms, sums=sums)
    compared = 0
    for leaf, module in modules:
        for name, grad in leaf.grads.items():
            theirs = getattr(module, THEIR_NAMES[name]).grad.numpy()
            assert_near(grad, theirs.T if isinstance(leaf, nn.Affine) else theirs, terms=terms, sums=2 * sums)
            compared += 1
        if isinstance(leaf, nn.BatchNorm):
            assert_near(leaf.state["running_mean"], module.running_mean.numpy(), terms=terms, sums=sums)
    assert compared == len(net.params)


# Shapes -------------------------------------------------------------------------------------------------------------

# Counted by hand from the layers: VGG of the documented widths; ResNet-18 for CIFAR is known to have 11,173,962,
# Page's ResNet-9 6,573,120, airbench94 1,971,352 that learn (and a frozen bank of 24 x 3 x 2 x 2).
PARAMETERS = {
    "vgg": 27 * 64 + 9 * (64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256) + 2 * 896 + 256 * 10 + 10,
    "resnet9": 6_573_120,
    "resnet18": 11_173_962,
    "speedrun": 1_971_352,
}


@pytest.mark.parametrize("name", NETS)
def test_the_default_net_has_its_known_number_of_parameters(name):
    net = NETS[name][0]()
    assert net.flat_params.size == PARAMETERS[name]
    assert net.output_shape == (10,)
    assert net.config["widths"] == list(net.config["widths"])


def test_whitening_and_gammas_of_the_speedrun_net_do_not_learn():
    net = nn.SpeedrunNet(4, 5, 6)
    assert net.state["whiten.w"].shape == (24, 3, 2, 2)
    assert [name for name in net.params if name.startswith("whiten")] == ["whiten.b"]
    assert not any(name.endswith("gamma") for name in net.params)
    assert net.body.layers["group1"].layers["bn1"].settings == {
        "channels": 4, "momentum": 0.6, "eps": 1e-12, "scale": False,
    }  # fmt: skip
    assert net.body.layers["pool"].settings["window"] == 3


SIZES = {
    "vgg_odd": (nn.VGG, (2,) * 6, (3, 8, 27)),
    "vgg_of_one_stage": (nn.VGG, (2, 3), (1, 6, 2)),
    "resnet9_of_the_smallest_image": (nn.ResNet9, (2, 2, 2, 2), (3, 8, 8)),
    "resnet9_odd": (nn.ResNet9, (2, 2, 2, 2), (1, 15, 37)),
    "resnet18_of_one_pixel": (nn.ResNet18, (2, 2, 2, 2), (3, 1, 1)),
    "resnet18_odd": (nn.ResNet18, (2, 3, 4, 5), (3, 17, 9)),
    "speedrun_of_the_smallest_image": (nn.SpeedrunNet, (2, 2, 2), (3, 9, 9)),
    "speedrun_64": (nn.SpeedrunNet, (2, 2, 2), (1, 64, 64)),
}


@pytest.mark.parametrize(("cls", "widths", "shape"), SIZES.values(), ids=SIZES.keys())
def test_other_image_sizes_work(rng, cls, widths, shape):
    net = cls(*widths, input_shape=shape, classes=4)
    scores = net.forward(normal(rng, (3, *shape), "float32"), training=True)
    assert scores.shape == (3, 4)
    net.backward(scores)
    assert np.isfinite(net.flat_grads).all()


BAD = {
    "vgg_odd_widths": (lambda: nn.VGG(4, 4, 4), ParamError, "two widths for each stage, got 3"),
    "vgg_size": (lambda: nn.VGG(input_shape=(3, 28, 7)), ShapeError, "VGG of 3 stages needs.*at least 8x8"),
    "vgg_width_zero": (lambda: nn.VGG(4, 0), ParamError, "widths"),
    "resnet9_widths": (lambda: nn.ResNet9(4, 4, 4), ParamError, "ResNet9 takes 4 widths.*got 3"),
    "resnet9_size": (lambda: nn.ResNet9(input_shape=(3, 32, 7)), ShapeError, "at least 8x8, got input_shape"),
    "resnet18_widths": (lambda: nn.ResNet18(4), ParamError, "ResNet18 takes 4 widths.*got 1"),
    "resnet18_list": (lambda: nn.ResNet18([4, 4, 4, 4]), ArgTypeError, "widths"),
    "speedrun_widths": (lambda: nn.SpeedrunNet(4, 4), ParamError, "SpeedrunNet takes 3 widths"),
    "speedrun_size": (lambda: nn.SpeedrunNet(input_shape=(3, 8, 9)), ShapeError, "at least 9x9"),
    "rows": (lambda: nn.ResNet18(input_shape=(3,)), ShapeError, "C, H, W"),
    "no_classes": (lambda: nn.SpeedrunNet(classes=0), ParamError, "classes"),
    "whitening_of_other_images": (
        lambda: nn.SpeedrunNet(2, 2, 2).prepare(np.zeros((2, 3, 31, 32), np.float32)), ShapeError, r"\(N, 3, 32, 32\)"
    ),
    "whitening_of_nothing": (
        lambda: nn.SpeedrunNet(2, 2, 2).prepare(np.zeros((0, 3, 32, 32), np.float32)), ShapeError, "N above 0"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "error", "word"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused(make, error, word):
    with pytest.raises(error, match=word):
        make()


# Configs ------------------------------------------------------------------------------------------------------------


@each_net
def test_build_makes_the_same_net_from_its_config(rng, cls, widths, shape, count):
    net = cls(*widths, input_shape=shape, classes=3, seed=4)
    again = nn.build(net.config)
    assert type(again) is cls
    assert again.config == net.config
    assert_same(again.flat_params, net.flat_params)
    net.prepare(normal(rng, (9, *shape), "float32"))
    again.load(net.params, net.state)
    x = normal(rng, (2, *shape), "float32")
    assert_same(again.forward(x), net.forward(x))


# Whitening ----------------------------------------------------------------------------------------------------------


def test_whitened_patches_are_uncorrelated_with_variance_one(rng):
    mix = normal(rng, (3, 3)) + 2 * np.eye(3)
    x = np.einsum("ij,njhw->nihw", mix, normal(rng, (300, 3, 9, 8)))  # more than are looked at at once
    w = whitening_filters(x)
    assert w.shape == (24, 3, 2, 2)
    assert_same(w[12:], -w[:12])
    y, _ = gpuconv.conv_forward(x, w[:12])
    rows = y.transpose(1, 0, 2, 3).reshape(12, -1)
    moment = rows @ rows.T / rows.shape[1]
    # Filter i is divided by sqrt(l + 5e-4) in place of sqrt(l): its second moment is l / (l + 5e-4).
    patches = (
        np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    )
    variances = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    np.testing.assert_allclose(moment, np.diag(variances / (variances + 5e-4)), rtol=0, atol=1e-11)


def test_prepare_sets_the_filters_and_changes_no_weight(rng):
    net = nn.SpeedrunNet(2, 2, 2)
    before = net.flat_params.copy()
    x = normal(rng, (4, 3, 32, 32), "float32")
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    net.prepare(last)
    assert_same(net.flat_params, before)
    assert_same(net.state["whiten.w"], whitening_filters(x), dtype="float32")
    plain = nn.ConvNet(4)
    plain.prepare(x)  # other nets have nothing to prepare


# Learning -----------------------------------------------------------------------------------------------------------


@each_net
def test_a_tiny_net_learns_ten_random_images_by_heart(cls, widths, shape, count):
    draws = generator(0, Stream.DATA)
    x, labels = draws.standard_normal((10, 3, 16, 16)).astype("float32"), draws.permutation(10)
    net = cls(*(4 * width for width in widths), input_shape=(3, 16, 16))
    net.prepare(x)
    muon = cls is nn.SpeedrunNet
    optimiser = nn.Muon(net, affine_lr=10, bias_lr=100) if muon else nn.SGD(net, nesterov=True)
    for step in range(40):
        _, dscores = gpuconv.softmax_cross_entropy(net.forward(x, training=True, step=step), labels)
        net.backward(dscores)
        optimiser.step(0.1)
    assert (net.forward(x, training=True).argmax(1) == labels).all()
