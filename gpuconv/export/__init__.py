"""Nets as files for other programs, and back: ONNX, and PyTorch's names and layouts in safetensors.

Neither onnx nor torch is imported before a function needs it; torch only by a check that the user asks for.
"""

from .check import Agreement, check_onnx, check_torch
from .onnx_file import onnx_model, to_onnx
from .onnx_reading import from_onnx
from .torch_file import from_torch, to_torch

__all__ = ["Agreement", "check_onnx", "check_torch", "from_onnx", "from_torch", "onnx_model", "to_onnx", "to_torch"]
