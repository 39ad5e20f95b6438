"""The torch operators that `stripes_sim.trace` tells apart, by name."""

from __future__ import annotations

__all__ = ["HARMLESS", "JOINS", "LOOKUPS", "MOVES", "PRODUCTS", "SUMS"]

# matrix products: the positions of their two operands
PRODUCTS = {
    "mm": (0, 1),
    "addmm": (1, 2),
    "bmm": (0, 1),
    "baddbmm": (1, 2),
    "addbmm": (1, 2),
    "mv": (0, 1),
    "addmv": (1, 2),
}
LOOKUPS = frozenset({"embedding", "_embedding_bag", "_embedding_bag_forward_only", "embedding_bag"})
_HARMLESS = """
    add sub mul div neg rsub pow sqrt rsqrt exp log abs tanh sigmoid relu clamp clamp_min clamp_max sign round where
    softmax _softmax log_softmax maximum minimum addcmul addcdiv lerp gelu silu erf sin cos eq ne lt le gt ge
    mean sum var std var_mean amax amin max min linalg_vector_norm norm cumsum prod argmax
    view _unsafe_view reshape t transpose permute expand slice select unsqueeze squeeze cat stack split
    split_with_sizes unbind chunk flip roll repeat index index_select gather clone copy _to_copy to detach alias
    lift_fresh as_strided contiguous constant_pad_nd pad unfold im2col diagonal tril triu masked_fill scatter
    native_layer_norm layer_norm native_group_norm group_norm native_batch_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training _prelu_kernel prelu _fused_rms_norm rms_norm zeros_like ones_like
    empty_like full_like new_zeros new_ones _weight_norm_interface _weight_norm is_same_size
    upsample_bilinear2d upsample_bicubic2d upsample_nearest2d _upsample_bicubic2d_aa _assert_async
"""
# These move or combine values one by one: a weight that only meets them (positions, scales, tokens) is no layer.
HARMLESS = frozenset(_HARMLESS.split())
_MOVES = """
    view _unsafe_view reshape _reshape_alias t transpose permute expand slice select unsqueeze squeeze split
    split_with_sizes unbind chunk flip roll repeat repeat_interleave index index_select gather clone copy _to_copy to
    detach alias lift_fresh as_strided contiguous unfold
"""
# These give back elements of their first operand, some of them several times.
MOVES = frozenset(_MOVES.split())
JOINS = frozenset({"cat", "stack"})
# A weight and a product of weights that meet in one of them are one weight (an adapter that is merged).
SUMS = frozenset({"add", "sub"})
