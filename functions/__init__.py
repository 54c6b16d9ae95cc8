"""The Lambda functions, one package each."""
