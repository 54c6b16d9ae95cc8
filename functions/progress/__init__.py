"""The progress function: answers over HTTP and to other Lambda functions."""
