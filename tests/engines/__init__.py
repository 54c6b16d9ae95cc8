"""Tests on real engines. They are slower than the others and need more than Python."""
