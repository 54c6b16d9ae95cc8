"""Counts changes: a job that changes makes its batch's revision go up."""
