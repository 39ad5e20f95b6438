"""The engine on a GPU, and its kernels, compiled by Triton."""
