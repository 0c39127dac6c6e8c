"""Layers, nets, optimisers and learning-rate schedules.  Every backward is written out: there is no tape."""

from typing import TYPE_CHECKING

from . import conv_transpose, layers, sample_norms, single_elements
from .average import WeightAverage
from .clip import clip_gradients
from .containers import Residual, Sequential, kinds
from .conv_transpose import *
from .from_config import build, optimiser
from .layer import Declared, Layer, build_layer
from .layers import *
from .models import VGG, ConvNet, ResNet9, ResNet18, SpeedrunNet, ThreeLayerConvNet
from .muon import Muon
from .net import Net
from .optim import SGD, Adam, AdamW, Optimiser, RMSprop
from .sample_norms import *
from .schedules import Constant, Cosine, OneCycle, Schedule, Step, schedule
from .single_elements import *
from .spec import from_file

__all__ = [
    "SGD",
    "VGG",
    "Adam",
    "AdamW",
    "Constant",
    "ConvNet",
    "Cosine",
    "Declared",
    "Layer",
    "Muon",
    "Net",
    "OneCycle",
    "Optimiser",
    "RMSprop",
    "ResNet9",
    "ResNet18",
    "Residual",
    "Schedule",
    "Sequential",
    "SpeedrunNet",
    "Step",
    "ThreeLayerConvNet",
    "WeightAverage",
    "build",
    "build_layer",
    "clip_gradients",
    "from_file",
    "kinds",
    "optimiser",
    "schedule",
]
__all__ += conv_transpose.__all__
__all__ += single_elements.__all__
__all__ += layers.__all__
__all__ += sample_norms.__all__

if not TYPE_CHECKING:  # which would take every name for one that is there

    def __getattr__(name):
        from .choice import no_attribute

        raise no_attribute(__name__, name, {known: known for known in __all__})
