"""Networks walked so that policies which begin alike share what they have in common."""
