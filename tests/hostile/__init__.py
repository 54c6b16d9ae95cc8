"""Fault injection, fuzzing, load tests and randomized histories, and their last results.

`make faults`, `make fuzz`, `make load` and `make histories` run them.
"""
