"""Where images come from, how they are split, cut and turned."""
