"""Scripts that the make targets run."""
