"""The nets that the trainer offers."""

from .convnet import ConvNet, ThreeLayerConvNet
from .resnet import ResNet9, ResNet18
from .speedrun import SpeedrunNet
from .vgg import VGG

__all__ = ["VGG", "ConvNet", "ResNet9", "ResNet18", "SpeedrunNet", "ThreeLayerConvNet"]
