"""What attach() reaches: models and training loops of other packages, each held to what finalize() promises."""
