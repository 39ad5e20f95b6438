"""How a layer's inputs are called where weights and inputs stand side by side."""

__all__ = ["input_name"]


def input_name(layer: str) -> str:
    """The name of a layer's inputs among the operands; no module can be called so.

    Example:
        >>> input_name("conv1")
        'conv1 (inputs)'
    """
    return f"{layer} (inputs)"
