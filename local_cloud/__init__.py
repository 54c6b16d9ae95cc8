"""What `make run` starts: API Gateway, the functions, DynamoDB, its stream and a token issuer on one machine.

The wheel does not contain this package.
"""
