"""The presets, as what differs from the settings' defaults."""

from __future__ import annotations

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "convnet": {},
    "three-layer": {
        "net": "three-layer",
        "optimizer": "adam",
        "lr": 1e-3,
        "epochs": 8,
        "crop": 0,
        "flip_mode": "random",
        "weight_decay": 0.0,
    },
    "vgg": {"net": "vgg", "epochs": 10},
    "resnet9": {"net": "resnet9", "epochs": 10, "batch_size": 256, "lr": 0.2},
    "resnet18": {"net": "resnet18", "epochs": 10},
    # Rates, momenta and weight decay of airbench94_muon, from its sum over a batch to a mean over 512: a rate of SGD
    # grows by 512.  Filters 0.24, which Muon makes blind to that; biases 0.053 x 512 / 0.24 = 113; the head 0.67 x 512 /
    # 0.24, less the square of what its first weights are smaller by here (0.0361: 1 / 16 / sqrt 3 against 1), = 1.86.
    # Decay: 0.004 of its batch of 2000 is 2e-6 an image, 512 of them by the head's rate of 0.446, = 2.3e-3.  That run
    # decays biases, too, and freezes the whitening's after three epochs.
    "speedrun": {
        "net": "speedrun",
        "epochs": 5,
        "batch_size": 512,
        "optimizer": "muon",
        "lr": 0.24,
        "momentum": 0.85,
        "affine_lr": 1.86,
        "bias_lr": 113.0,
        "weight_decay": 2.3e-3,
        "label_smoothing": 0.2,
        "warmup": 0.0,
        "tta": "flip+shift",
    },
}
