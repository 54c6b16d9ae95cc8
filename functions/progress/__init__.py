"""Answers how far a batch is: over HTTP, and to other Lambdas."""
