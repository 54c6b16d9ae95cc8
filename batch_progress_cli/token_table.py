"""Issue, list and revoke API tokens. The table stores only their SHA-256."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from batch_progress.table import ID_PATTERN, timestamp
from batch_progress.tokens import SESSION_OWNER, session_owner
from batch_progress_cli.failure import Failed
from batch_progress_cli.terminal import visible

# A prefix for secret scanners. It also keeps a token from looking like a command-line option.
PREFIX = "bp_"
_SECRET_BYTES = 32
# Characters of a hash that are printed.
SHOWN = 12
_HASH_PREFIX = re.compile("[0-9a-f]{6,64}")
_LONGEST_NAME = 256
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class TokenEntry:
    """An entry of the tokens table.

    Attributes:
        token_hash: SHA-256 in lower-case hex.
        owner_id: The owner, as `issuer` names it.
        issuer: The issuer of session tokens that names the owner; `""` for an owner without one.
        batch_id: The only batch that the token opens; `""` for all of the owner's.
        label: A label for the list; `""` without one.
        created_at: RFC 3339; `""` if unknown.
        expires_at: RFC 3339; `""` without an expiry.
        revoked_at: RFC 3339; `""` if it is not revoked.
    """

    token_hash: str
    owner_id: str
    issuer: str = ""
    batch_id: str = ""
    label: str = ""
    created_at: str = ""
    expires_at: str = ""
    revoked_at: str = ""

    @classmethod
    def of(cls, item: dict[str, dict[str, str]]) -> Self:
        """Read an item; other programs may have written it.

        Raises:
            Failed: It is the item of another table.
        """
        texts = {name: visible(next(iter(value.values()), ""), 64) for name, value in item.items() if _scalar(value)}
        if "token_hash" not in texts:
            raise Failed("this is not a table of tokens: its items have no token_hash")
        expires = texts.get("expires_at", "")
        return cls(
            token_hash=texts["token_hash"],
            owner_id=texts.get("owner_id", ""),
            issuer=texts.get("issuer", ""),
            batch_id=texts.get("batch_id", ""),
            label=texts.get("label", ""),
            created_at=texts.get("created_at", ""),
            expires_at=_second(expires) if expires else "",
            revoked_at=texts.get("revoked_at", ""),
        )

    @property
    def owner(self) -> str:
        """The `owner_id` of the batches that the token can read."""
        return session_owner(self.issuer, self.owner_id) if self.issuer else self.owner_id

    @property
    def opens(self) -> str:
        """What the token opens, for a sentence."""
        return f"{self.batch_id} of {self.owner}" if self.batch_id else f"the batches of {self.owner}"


class TokenTable:
    """The tokens table."""

    def __init__(self, client: Any, table: str) -> None:  # noqa: ANN401  # boto has no types
        self._client = client
        self._table = table

    def issue(
        self,
        owner: str,
        label: str,
        lasts: timedelta | None,
        now: datetime,
        *,
        issuer: str = "",
        batch_id: str = "",
    ) -> tuple[str, TokenEntry]:
        """Create a token and store its hash; return the token and its entry.

        Raises:
            Failed: The owner, the label, the issuer or the batch id is not valid.
        """
        _check(owner, label, issuer, batch_id)
        token = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        item = {
            "token_hash": {"S": _hash(token)},
            "owner_id": {"S": owner},
            "created_at": {"S": timestamp(now)},
        }
        if issuer:
            item["issuer"] = {"S": issuer}
        if batch_id:
            item["batch_id"] = {"S": batch_id}
        if label:
            item["label"] = {"S": label}
        if lasts:
            item["expires_at"] = {"N": str(int((now + lasts).timestamp()))}
        self._client.put_item(TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(token_hash)")
        return token, TokenEntry.of(item)

    def tokens(self) -> list[TokenEntry]:
        """Return every entry, sorted by owner and creation."""
        found = [TokenEntry.of(item) for item in self._scan()]
        return sorted(found, key=lambda token: (token.owner, token.created_at, token.token_hash))

    def revoke(self, named: str, now: datetime) -> tuple[TokenEntry, bool]:
        """Revoke a token, given the token or the beginning of its hash.

        Returns:
            The entry, and whether this call revoked it.

        Raises:
            Failed: No token matches, or several do.
        """
        token_hash = self._find(named)
        try:
            before = self._client.update_item(
                TableName=self._table,
                Key={"token_hash": {"S": token_hash}},
                UpdateExpression="SET revoked_at = if_not_exists(revoked_at, :now)",
                ConditionExpression="attribute_exists(token_hash)",
                ExpressionAttributeValues={":now": {"S": timestamp(now)}},
                ReturnValues="ALL_OLD",
            )["Attributes"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                raise Failed("no such token in this table") from error
            raise
        return TokenEntry.of(before), "revoked_at" not in before

    def _find(self, named: str) -> str:
        """Return the hash of a token, given the token or the beginning of its hash."""
        token_hash = _hash(named)
        # A token can look like a hash: try it as a token first.
        if not _HASH_PREFIX.fullmatch(named) or self._has(token_hash):
            return token_hash
        found = [
            item["token_hash"]["S"]
            for item in self._scan(
                FilterExpression="begins_with(token_hash, :named)", ExpressionAttributeValues={":named": {"S": named}}
            )
        ]
        if len(found) > 1:
            raise Failed(f"{len(found)} tokens have hashes that begin with {named}; give more characters")
        return str(found[0]) if found else token_hash

    def _has(self, token_hash: str) -> bool:
        return "Item" in self._client.get_item(
            TableName=self._table, Key={"token_hash": {"S": token_hash}}, ConsistentRead=True
        )

    def _scan(self, **arguments: object) -> Iterable[dict[str, Any]]:
        pages = self._client.get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True, **arguments)
        for page in pages:
            yield from page["Items"]


def page_address(api: str, batch_id: str) -> str:
    """Return the address of the page that shows a batch; the page takes a token from its fragment, `#token=`.

    Args:
        api: The base URL of the API, `https://…`, as the stack's output `ApiUrl`.
        batch_id: The batch's id.

    Raises:
        Failed: The URL is not one of an API.
    """
    try:
        address = urlsplit(api)
        host, _ = address.hostname, address.port
    except ValueError:
        host = None
    # A token must not cross a network in the clear.
    schemes = {"https", "http"} if host in _LOOPBACK else {"https"}
    usable = host and address.scheme in schemes and api.isprintable()
    if not usable or address.username is not None or address.query or address.fragment:
        raise Failed(f"{visible(api, 140)!r} is not the address of an API; give the https URL that clients use")
    return f"{api.rstrip('/')}/watch/{batch_id}"


def listing(tokens: Iterable[TokenEntry]) -> str:
    """Format the entries as a table."""
    rows = [("OWNER", "BATCH", "LABEL", "CREATED", "EXPIRES", "REVOKED", "HASH")]
    rows += [
        (
            token.owner,
            token.batch_id or "-",
            token.label or "-",
            token.created_at or "-",
            token.expires_at or "-",
            token.revoked_at or "-",
            token.token_hash[:SHOWN],
        )
        for token in tokens
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _check(owner: str, label: str, issuer: str, batch_id: str) -> None:
    """Raise `Failed` if an attribute of a new token is not valid."""
    for what, name in (("owner", owner), ("label", label), ("issuer", issuer)):
        if not name.isprintable() or name != name.strip() or len(name) > _LONGEST_NAME:
            raise Failed(
                f"the {what} must be at most {_LONGEST_NAME} printable characters, without spaces at either end"
            )
    if not owner:
        raise Failed("the owner is empty")
    if issuer and not re.fullmatch(r"https?://[^\s?#]+", issuer):
        raise Failed(
            f"{issuer!r} is not an issuer; give a URL without query or fragment, as in the `iss` of its tokens"
        )
    if not issuer and SESSION_OWNER.match(owner):
        raise Failed("the owner has the form of a session token's owner; give the issuer with --issuer")
    if batch_id and not re.fullmatch(ID_PATTERN, batch_id):
        raise Failed(f"{visible(batch_id, 140)!r} is not a batch id: 1 to 128 of A-Z, a-z, 0-9, '_' and '-'")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def _scalar(value: dict[str, Any]) -> bool:
    return isinstance(next(iter(value.values()), None), str)


def _second(epoch: str) -> str:
    try:
        return datetime.fromtimestamp(float(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        # Written by another program; the function rejects such a token.
        return f"bad: {epoch}"
