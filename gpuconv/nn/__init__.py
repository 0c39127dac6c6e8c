"""Layers, nets, optimisers and learning-rate schedules.  Every backward is written out: there is no tape."""

from .average import WeightAverage
from .build import build, build_layer
from .clip import clip_gradients
from .containers import Residual, Sequential
from .layer import Declared, Layer
from .layers import (
    Affine,
    AveragePool,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Gelu,
    GlobalAveragePool,
    MaxPool,
    Relu,
)
from .models import ConvNet, ThreeLayerConvNet
from .net import Net
from .optim import SGD, Adam, AdamW, Optimiser, RMSprop, optimiser
from .schedules import Constant, Cosine, OneCycle, Schedule, Step, schedule

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Affine",
    "AveragePool",
    "BatchNorm",
    "Constant",
    "Conv",
    "ConvNet",
    "Cosine",
    "Declared",
    "Dropout",
    "Flatten",
    "Gelu",
    "GlobalAveragePool",
    "Layer",
    "MaxPool",
    "Net",
    "OneCycle",
    "Optimiser",
    "RMSprop",
    "Relu",
    "Residual",
    "Schedule",
    "Sequential",
    "Step",
    "ThreeLayerConvNet",
    "WeightAverage",
    "build",
    "build_layer",
    "clip_gradients",
    "optimiser",
    "schedule",
]
