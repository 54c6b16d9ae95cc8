"""Count the changes of a batch's jobs, so that an entity tag from before a change no longer matches.

The revision only says that something has changed: counting a change twice or out of order does no harm
(docs/decisions/0003-revision.md).
"""

from batch_progress import table
from batch_progress.dynamodb import Client, RequestRefused


class NotCountable(Exception):
    """The batch's revision cannot be increased, for example because it is not a number. A retry would fail too."""


class Revisions:
    """Writes the revisions of batches."""

    def __init__(self, client: Client, jobs_table: str) -> None:
        self._client = client
        self._table = jobs_table

    def count(self, batch_id: str) -> bool:
        """Add 1 to a batch's revision. Return whether the batch exists.

        Raises:
            NotCountable: The `BATCH` item does not allow it.
            ServiceUnavailable: DynamoDB gave no complete response in time.
        """
        try:
            self._client.update_item(
                TableName=self._table,
                Key=table.batch_key(batch_id),
                UpdateExpression="ADD #revision :one",
                # Without this condition, the update would create a deleted batch again as an item with only a revision.
                ConditionExpression="attribute_exists(#owner_id)",
                ExpressionAttributeNames={"#revision": "revision", "#owner_id": "owner_id"},
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
        except RequestRefused as error:
            match error.code:
                case "ConditionalCheckFailedException":
                    return False
                case "ValidationException":
                    raise NotCountable(str(error)) from error
            raise
        return True
