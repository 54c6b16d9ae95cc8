"""Fault injection, fuzzing and load tests: `make faults`, `make fuzz`, `make load`, and their last results."""
