"""Compiled forms of the wave and of the quantisers, behind one autograd node a group; each has a twin in plain torch.

``levels`` is what a quantiser states of itself, and the plain form that follows. ``rounding`` puts a call over many
layers behind nodes, ``groups`` decides which layers and remembers what was made, ``activations`` is for inputs.
``engine`` says what an engine does: ``cpu`` (Numba) and ``cuda`` (Triton) do it, ``closed_forms`` for every dtype and
device; ``backends`` chooses.
"""
