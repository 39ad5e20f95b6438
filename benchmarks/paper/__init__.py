"""Accuracy, tables and figures: what papers claim, run again."""
