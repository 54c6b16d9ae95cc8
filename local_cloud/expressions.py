"""DynamoDB's condition, key condition, update and projection expressions, for top-level attributes."""

import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

type Value = dict[str, Any]  # an attribute value in DynamoDB's JSON
type Item = Mapping[str, Value]
type Names = Mapping[str, str]
type Values = Mapping[str, Value]
# A syntax tree: the kind of a node, then its parts.
type Node = tuple[Any, ...]

_TOKEN: Final = re.compile(r"\s*(?:([#:]?[A-Za-z_][A-Za-z0-9_]*)|(<>|<=|>=|[=<>(),+-]))")
_PATH: Final = re.compile(r"#?[A-Za-z_][A-Za-z0-9_]*")
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FUNCTIONS: Final = {"attribute_exists": 1, "attribute_not_exists": 1, "attribute_type": 2, "begins_with": 2, "size": 1}
_CLAUSES: Final = ("SET", "REMOVE", "ADD")
_38_DIGITS: Final = Context(prec=38)


class Invalid(Exception):
    """DynamoDB would answer with a `ValidationException`."""


def number(text: object) -> str:
    """Return a number as DynamoDB stores it: without an exponent and without zeros that mean nothing.

    Raises:
        Invalid: It is not a number.
    """
    try:
        value = Decimal(str(text))
    except InvalidOperation as error:
        raise Invalid("The parameter cannot be converted to a numeric value") from error
    if not value.is_finite():
        raise Invalid("The parameter cannot be converted to a numeric value")
    written = format(_38_DIGITS.plus(value), "f")
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return "0" if written in ("-0", "") else written


# ---- Parsing ------------------------------------------------------------------------------------------------


class _Parser:
    """A recursive-descent parser of one expression."""

    def __init__(self, text: str) -> None:
        self._tokens = list(self._split(text))
        self._at = 0

    @staticmethod
    def _split(text: str) -> Iterator[str]:
        at, text = 0, text.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise Invalid(f"Syntax error in {text!r} at {at}")
            yield match[1] or match[2]
            at = match.end()

    @property
    def ended(self) -> bool:
        return self._at == len(self._tokens)

    def peek(self) -> str:
        return "" if self.ended else self._tokens[self._at]

    def take(self, *expected: str) -> str:
        token = self.peek()
        if not token or (expected and token.upper() not in expected):
            raise Invalid(f"Syntax error; token: {token or '<EOF>'!r}, expected: {' or '.join(expected)}")
        self._at += 1
        return token

    def comes(self, *tokens: str) -> bool:
        """Take the next token if it is one of `tokens`."""
        if self.peek().upper() in tokens and self.peek():
            self._at += 1
            return True
        return False

    # Conditions, from the weakest operator to the strongest

    def condition(self) -> Node:
        node = self._conjunction()
        while self.comes("OR"):
            node = ("or", node, self._conjunction())
        return node

    def _conjunction(self) -> Node:
        node = self._negation()
        while self.comes("AND"):
            node = ("and", node, self._negation())
        return node

    def _negation(self) -> Node:
        if self.comes("NOT"):
            return ("not", self._negation())
        if self.comes("("):
            node = self.condition()
            self.take(")")
            return node
        return self._comparison()

    def _comparison(self) -> Node:
        left = self.operand()
        if left[0] == "call" and left[1] != "size":
            return left
        if self.comes("BETWEEN"):
            low = self.operand()
            self.take("AND")
            return ("between", left, low, self.operand())
        if self.comes("IN"):
            self.take("(")
            options = [self.operand()]
            while self.comes(","):
                options.append(self.operand())
            self.take(")")
            return ("in", left, options)
        return ("compare", self.take(*_COMPARISONS), left, self.operand())

    def operand(self) -> Node:
        name = self.take()
        if name.startswith(":"):
            return ("value", name)
        if self.comes("("):
            arguments = [self.operand()]
            while self.comes(","):
                arguments.append(self.operand())
            self.take(")")
            if name != "if_not_exists" and _FUNCTIONS.get(name) != len(arguments):
                raise Invalid(f"Invalid function name or number of arguments; function: {name}")
            return ("call", name, arguments)
        if not name[0].isalpha() and name[0] not in "#_":
            raise Invalid(f"Syntax error; token: {name!r}")
        return ("path", name)

    # Updates

    def update(self) -> dict[str, list[Node]]:
        clauses: dict[str, list[Node]] = {}
        while not self.ended:
            clause = self.take(*_CLAUSES).upper()
            if clause in clauses:
                raise Invalid(f'The "{clause}" section can only be used once')
            clauses[clause] = [self._action(clause)]
            while self.comes(","):
                clauses[clause].append(self._action(clause))
        return clauses

    def _action(self, clause: str) -> Node:
        path = self.operand()
        if path[0] != "path":
            raise Invalid("Syntax error: an action begins with a path")
        match clause:
            case "REMOVE":
                return (path, None)
            case "ADD":
                return (path, self.operand())
        self.take("=")
        value = self.operand()
        while self.peek() in ("+", "-"):
            value = ("sum", self.take(), value, self.operand())
        return (path, value)


@lru_cache(512)
def _condition(text: str) -> Node:
    parser = _Parser(text)
    node = parser.condition()
    if not parser.ended:
        raise Invalid(f"Syntax error; token: {parser.peek()!r}")
    return node


@lru_cache(512)
def _update(text: str) -> dict[str, list[Node]]:
    return _Parser(text).update()


@lru_cache(512)
def _placeholders(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[#:][A-Za-z_][A-Za-z0-9_]*", text))


def check_placeholders(names: Names, values: Values, *expressions: str | None) -> None:
    """Refuse placeholders that no expression uses, or that are not defined.

    Raises:
        Invalid: There is one.
    """
    used = frozenset[str]().union(*(_placeholders(text) for text in expressions if text))
    defined = names.keys() | values.keys()
    if used != defined:
        raise Invalid(f"Placeholders unused: {sorted(defined - used)}, undefined: {sorted(used - defined)}")


# ---- Evaluation ---------------------------------------------------------------------------------------------


class _Evaluation:
    """The names, the values and the item that an expression is about."""

    def __init__(self, item: Item, names: Names, values: Values) -> None:
        self._item = item
        self._names = names
        self._values = values

    def name(self, path: Node) -> str:
        token: str = path[1]
        return self._names[token] if token.startswith("#") else token

    def value(self, node: Node) -> Value | None:
        match node:
            case ("value", str(token)):
                return self._values[token]
            case ("path", _):
                return self._item.get(self.name(node))
            case ("call", "size", [operand]):
                measured = self.value(operand)
                return None if measured is None else {"N": str(_length(measured))}
            case ("call", "if_not_exists", [path, otherwise]):
                present = self.value(path)
                return self.value(otherwise) if present is None else present
            case ("sum", sign, left, right):
                terms = [self.value(left), self.value(right)]
                if any(term is None or "N" not in term for term in terms):
                    raise Invalid("An operand in the update expression has an incorrect data type")
                first, second = (Decimal(term["N"]) for term in terms if term)
                return {"N": number(first + second if sign == "+" else first - second)}
        raise Invalid(f"Not an operand: {node}")

    def holds(self, node: Node) -> bool:  # noqa: PLR0911  # one for each kind of node
        match node:
            case ("and", left, right):
                return self.holds(left) and self.holds(right)
            case ("or", left, right):
                return self.holds(left) or self.holds(right)
            case ("not", inner):
                return not self.holds(inner)
            case ("compare", sign, left, right):
                return _compared(sign, self.value(left), self.value(right))
            case ("between", operand, low, high):
                value = self.value(operand)
                return _compared(">=", value, self.value(low)) and _compared("<=", value, self.value(high))
            case ("in", operand, options):
                value = self.value(operand)
                return any(_compared("=", value, self.value(option)) for option in options)
            case ("call", name, arguments):
                return self._function(name, [self.value(argument) for argument in arguments])
        raise Invalid(f"Not a condition: {node}")

    @staticmethod
    def _function(name: str, arguments: list[Value | None]) -> bool:
        match name, arguments:
            case "attribute_exists", [value]:
                return value is not None
            case "attribute_not_exists", [value]:
                return value is None
            case "attribute_type", [value, {"S": kind}]:
                return value is not None and kind in value
            case "begins_with", [value, {"S": start}]:
                return value is not None and "S" in value and str(value["S"]).startswith(start)
        raise Invalid(f"Incorrect operand type for operator or function; function: {name}")


def _length(value: Value) -> int:
    kind, content = next(iter(value.items()))
    if kind not in ("S", "L", "M"):
        raise Invalid("size() of a number, a boolean or NULL")
    return len(content.encode()) if kind == "S" else len(content)


def _compared(sign: str, left: Value | None, right: Value | None) -> bool:
    """Compare two values. Values of different types, or absent ones, are unequal and in no order."""
    if left is None or right is None or left.keys() != right.keys():
        return sign == "<>"
    kind = next(iter(left))
    first, second = left[kind], right[kind]
    if kind == "N":
        first, second = Decimal(first), Decimal(second)
    elif kind == "S":
        first, second = first.encode(), second.encode()
    elif sign not in ("=", "<>"):
        return False
    return _COMPARISONS[sign](first, second)


def holds(text: str, item: Item | None, names: Names, values: Values) -> bool:
    """Whether a condition holds for an item; `None` is an item that does not exist.

    Raises:
        Invalid: It is not a condition.
    """
    return _Evaluation(item or {}, names, values).holds(_condition(text))


def check(condition: str) -> None:
    """Refuse a malformed filter, even if no item meets it.

    Raises:
        Invalid: It is malformed.
    """
    _condition(condition)


def key_condition(text: str, names: Names, values: Values) -> dict[str, Node]:
    """Return the one comparison with each key attribute.

    Raises:
        Invalid: It is not a key condition.
    """
    comparisons: dict[str, Node] = {}
    evaluation = _Evaluation({}, names, values)
    rest = [_condition(text)]
    while rest:
        node = rest.pop()
        match node:
            case ("and", left, right):
                rest += [left, right]
                continue
            case ("compare", sign, ("path", _) as path, ("value", _)) if sign != "<>":
                name = evaluation.name(path)
            case ("between", ("path", _) as path, ("value", _), ("value", _)):
                name = evaluation.name(path)
            case ("call", "begins_with", [("path", _) as path, ("value", _)]):
                name = evaluation.name(path)
            case _:
                raise Invalid("Query key condition not supported")
        if name in comparisons:
            raise Invalid("KeyConditionExpressions must only contain one condition per key")
        comparisons[name] = node
    return comparisons


def between(node: Node | None, values: Values, keys: Sequence[str]) -> tuple[int, int]:
    """Return the slice of sorted keys for which a comparison of `key_condition` holds.

    Strings sort by code point, which is also the order of their UTF-8 bytes.

    Raises:
        Invalid: The comparison is with a value that is not a string.
    """

    def text(token: str) -> str:
        if "S" not in values[token]:
            raise Invalid("The provided key element does not match the schema")
        return str(values[token]["S"])

    match node:
        case None:
            return 0, len(keys)
        case ("between", _, (_, low), (_, high)):
            return bisect_left(keys, text(low)), bisect_right(keys, text(high))
        case ("call", "begins_with", [_, (_, start)]):
            prefix = text(start)
            return bisect_left(keys, prefix), bisect_right(keys, prefix, key=lambda key: key[: len(prefix)])
        case ("compare", sign, _, (_, token)):
            left, right = bisect_left(keys, text(token)), bisect_right(keys, text(token))
            slices = {"=": (left, right), "<": (0, left), "<=": (0, right), ">": (right, len(keys))}
            return slices.get(sign, (left, len(keys)))
    raise Invalid(f"Not a comparison: {node}")


def updated(text: str, item: Item, names: Names, values: Values) -> dict[str, Value]:
    """Return an item after an update. All values are computed from the item before it.

    Raises:
        Invalid: DynamoDB would refuse the update.
    """
    evaluation = _Evaluation(item, names, values)
    after = dict(item)
    touched: set[str] = set()
    for clause, actions in _update(text).items():
        for path, operand in actions:
            name = evaluation.name(path)
            if name in touched:
                raise Invalid("Two document paths overlap with each other")
            touched.add(name)
            if clause == "REMOVE":
                after.pop(name, None)
                continue
            value = evaluation.value(operand)
            if value is None:
                raise Invalid("The provided expression refers to an attribute that does not exist in the item")
            after[name] = _added(item.get(name), value) if clause == "ADD" else value
    return after


def _added(before: Value | None, value: Value) -> Value:
    if "N" not in value or (before is not None and "N" not in before):
        raise Invalid("An operand in the update expression has an incorrect data type")
    return {"N": number(Decimal(before["N"] if before else 0) + Decimal(value["N"]))}


def projection(text: str | None, names: Names) -> tuple[str, ...]:
    """Return the names of the attributes in a projection, none if there is no projection.

    Raises:
        Invalid: It is not a list of attributes.
    """
    paths = tuple(path.strip() for path in text.split(",")) if text else ()
    if not all(_PATH.fullmatch(path) for path in paths):
        raise Invalid(f"Syntax error in {text!r}: not a list of attributes")
    return tuple(names.get(path, path) for path in paths)


def projected(wanted: tuple[str, ...], item: dict[str, Value]) -> dict[str, Value]:
    """Return the wanted attributes of an item, all of them if none is named."""
    return {name: item[name] for name in wanted if name in item} if wanted else item
