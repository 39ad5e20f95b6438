"""The method in the training loops of other packages: one file a package, imported by whoever has it."""
