"""Tags and trees of sentences from a pretrained encoder: what table5 is made with."""
