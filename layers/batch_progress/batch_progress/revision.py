"""Counting that a batch's jobs changed, so that a tag of what they were before holds no longer.

The number says "look again" and nothing more: counted twice or out of order it does no harm
(docs/decisions/0003-revision.md).
"""

from typing import Any

from botocore.exceptions import ClientError

from batch_progress import dynamodb, table


class NotCountable(Exception):
    """The batch's item does not take a count, however often it is tried: its `revision` is no number, say."""


class Revisions:
    """The revisions of batches, for counting up."""

    def __init__(self, client: Any, table: str) -> None:  # noqa: ANN401  # botocore ships no types
        """Take a client from `dynamodb.client` and the name of the jobs table."""
        self._client = client
        self._table = table

    def count(self, batch_id: str) -> bool:
        """Add 1 to a batch's revision; return whether the batch is there.

        Raises:
            NotCountable: Its item does not take it.
            ServiceUnavailable: DynamoDB gave no answer in time.
        """
        try:
            dynamodb.update_item(
                self._client,
                TableName=self._table,
                Key=table.batch_key(batch_id),
                UpdateExpression="ADD #revision :one",
                # A batch that has expired must not rise again as an item with nothing but a revision.
                ConditionExpression="attribute_exists(#owner_id)",
                ExpressionAttributeNames={"#revision": "revision", "#owner_id": "owner_id"},
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
        except ClientError as error:
            match error.response["Error"]["Code"]:
                case "ConditionalCheckFailedException":
                    return False
                case "ValidationException":
                    raise NotCountable(str(error)) from error
            raise
        return True
