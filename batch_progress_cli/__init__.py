"""The command `batch-progress`."""
