"""One runnable file per published table, figure and speed claim: ``python -m benchmarks NAME``."""
