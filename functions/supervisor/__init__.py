"""The supervisor: makes sure that every batch ends, and announces it."""
