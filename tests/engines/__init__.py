"""Tests on real engines; slower than the others, and in need of more than Python."""
