"""The paper's step: attach to a model, the two penalties, how a beta moves, when bits freeze."""
