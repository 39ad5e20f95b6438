"""The engine on the CPU, and its loops, compiled by Numba."""
