"""The functions of cupy.cudnn that are not here, so that a call says so."""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import UnsupportedError

SERVED = "convolutions, batch normalisation, pooling, activations, softmax and dropout"


_DOCSTRING = """Raise UnsupportedError: there is no such function here.

>>> cudnn.{name}()
Traceback (most recent call last):
    ...
gpuconv.errors.UnsupportedError: {message}
"""


def _refusal(name: str) -> Any:
    message = f"gpuconv.cudnn has no {name}: it has {SERVED}"

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        del args, kwargs
        raise UnsupportedError(message)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = _DOCSTRING.format(name=name, message=message)
    return refuse


create_rnn_descriptor = _refusal("create_rnn_descriptor")
get_rnn_lin_layer_matrix_params = _refusal("get_rnn_lin_layer_matrix_params")
get_rnn_lin_layer_bias_params = _refusal("get_rnn_lin_layer_bias_params")
rnn_forward_training = _refusal("rnn_forward_training")
rnn_forward_training_ex = _refusal("rnn_forward_training_ex")
rnn_forward_inference = _refusal("rnn_forward_inference")
rnn_forward_inference_ex = _refusal("rnn_forward_inference_ex")
rnn_backward_data = _refusal("rnn_backward_data")
rnn_backward_data_ex = _refusal("rnn_backward_data_ex")
rnn_backward_weights = _refusal("rnn_backward_weights")
rnn_backward_weights_ex = _refusal("rnn_backward_weights_ex")
ctc_loss = _refusal("ctc_loss")
create_spatial_transformer_descriptor = _refusal("create_spatial_transformer_descriptor")
create_fused_ops_plan = _refusal("create_fused_ops_plan")
create_fused_ops_const_param_pack = _refusal("create_fused_ops_const_param_pack")
create_fused_ops_variant_param_pack = _refusal("create_fused_ops_variant_param_pack")
get_fused_ops_const_param_pack_attribute = _refusal("get_fused_ops_const_param_pack_attribute")
get_fused_ops_variant_param_pack_attribute = _refusal("get_fused_ops_variant_param_pack_attribute")
set_fused_ops_const_param_pack_attribute = _refusal("set_fused_ops_const_param_pack_attribute")
set_fused_ops_variant_param_pack_attribute = _refusal("set_fused_ops_variant_param_pack_attribute")
make_fused_ops_plan = _refusal("make_fused_ops_plan")
fused_ops_execute = _refusal("fused_ops_execute")
add_tensor = _refusal("add_tensor")
create_op_tensor_descriptor = _refusal("create_op_tensor_descriptor")
create_reduce_tensor_descriptor = _refusal("create_reduce_tensor_descriptor")
