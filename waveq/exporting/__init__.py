"""What a policy leads to: integers, and files that other programs run."""
