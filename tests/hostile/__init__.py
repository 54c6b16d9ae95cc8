"""What breaks, abuses and loads the functions: `make faults`, `make fuzz`, `make load`, and their results."""
