"""Compiled forms of the wave and of the quantisers; everything here has a readable twin in plain torch.

``interface`` says what an engine does. ``numba_engine`` (CPU) and ``triton_engine`` (CUDA) do it; ``torch_engine`` does
it in closed forms for every dtype and device. ``wave`` and ``rounding`` put them behind ``torch.autograd.Function``,
``waveq.backends`` chooses.
"""
