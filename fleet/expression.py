"""The condition language of rules: text → typed tree. Nothing here evaluates, and nothing reaches Python's eval.

What an expression means is RULES.md; what names it may use depends on the device type and is checked by
`fleet.rule`. Positions are columns in the text, from 0, so that an error can point at its place.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from fleet.duration import format_duration, parse_duration


class ExpressionError(ValueError):
    """The text is not an expression of the language. `column` counts from 0."""

    def __init__(self, message: str, column: int):
        super().__init__(message)
        self.column = column


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Name:
    """A metric or a param; `type.metric` inside a site function."""

    name: str
    column: int = field(compare=False, default=0)


@dataclass(frozen=True)
class Window:
    """A literal duration in a call."""

    length: timedelta


@dataclass(frozen=True)
class Call:
    function: str
    arguments: "tuple[Node, ...]"
    column: int = field(compare=False, default=0)


@dataclass(frozen=True)
class Arithmetic:
    """`operator` is one of + - * / ; unary minus is 0 - x."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Comparison:
    """`18 < t < 25`: operands t0 … tn, operators between them; the Kleene conjunction of its links."""

    operands: "tuple[Node, ...]"
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Logic:
    """`operator` is and, or, not (then one operand)."""

    operator: str
    operands: "tuple[Node, ...]"


Node = Number | Name | Window | Call | Arithmetic | Comparison | Logic

TOKEN = re.compile(
    r"\s*(?:(?P<duration>\d+(?:\.\d+)?(?:ms|s|m|h|d)\b)|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)|(?P<operator><=|>=|==|!=|[-+*/<>(),]))",
    re.ASCII,
)
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
MAX_TOKENS = 300
"""A chain such as a + b + … is a tree as deep as it is long, and whoever walks it recurses; 300 are some 100 terms."""
MAX_DEPTH = 30
"""Nesting beyond this is a mistake or an attack: a level costs ten frames, and Python's stack ends at 1,000."""


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    column: int


def tokens_of(text: str) -> list[Token]:
    tokens, position = [], 0
    end = len(text.rstrip())
    while position < end:
        match = TOKEN.match(text, position)
        if match is None:
            column = position + len(text[position:]) - len(text[position:].lstrip())
            raise ExpressionError(f"{text[column]!r} is not part of the language", column)
        kind = match.lastgroup or ""
        tokens.append(Token(kind, match[kind], match.start(kind)))
        position = match.end()
    tokens.append(Token("end", "", len(text)))
    return tokens


class Parser:
    """Recursive descent, one method a level of precedence: or, and, not, comparison, sum, product, sign, atom."""

    def __init__(self, text: str):
        self.tokens = tokens_of(text)
        self.place = 0
        self.depth = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.place]

    def take(self, *texts: str) -> Token | None:
        token = self.token
        if token.kind in ("operator", "name") and token.text in texts:
            self.place += 1
            return token
        return None

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise ExpressionError(f"expected {text!r}, found {self.token.text or 'the end'!r}", self.token.column)

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"nested more than {MAX_DEPTH} deep", self.token.column)
        node = self.logic("or", lambda: self.logic("and", self.negation))
        self.depth -= 1
        return node

    def logic(self, operator: str, operand) -> Node:  # type: ignore[no-untyped-def]
        operands = [operand()]
        while self.take(operator):
            operands.append(operand())
        return operands[0] if len(operands) == 1 else Logic(operator, tuple(operands))

    def negation(self) -> Node:
        negations = 0
        while self.take("not"):
            negations += 1
        node = self.comparison()
        for _ in range(2 - negations % 2 if negations else 0):  # `not not 5` is true, not 5
            node = Logic("not", (node,))
        return node

    def comparison(self) -> Node:
        operands, operators = [self.arithmetic("+", "-")], []
        while token := self.take(*COMPARISONS):
            operators.append(token.text)
            operands.append(self.arithmetic("+", "-"))
        return Comparison(tuple(operands), tuple(operators)) if operators else operands[0]

    def arithmetic(self, *operators: str) -> Node:
        below = self.sign if operators == ("*", "/") else lambda: self.arithmetic("*", "/")
        node = below()
        while token := self.take(*operators):
            node = Arithmetic(token.text, node, below())
        return node

    def sign(self) -> Node:
        negative = False
        while token := self.take("-", "+"):
            negative ^= token.text == "-"
        node = self.atom()
        return Arithmetic("-", Number(0.0), node) if negative else node

    def atom(self) -> Node:
        token = self.token
        if self.take("("):
            node = self.expression()
            self.expect(")")
            return node
        self.place += 1
        if token.kind == "number":
            if (value := float(token.text)) == float("inf"):
                raise ExpressionError(f"{token.text} is beyond the largest number, 1.8e308", token.column)
            return Number(value)
        if token.kind == "duration":
            try:
                return Window(parse_duration(token.text))
            except ValueError as error:
                raise ExpressionError(str(error), token.column) from None
        if token.kind == "name" and token.text not in ("and", "or", "not"):
            if token.text in ("true", "false"):
                return Number(float(token.text == "true"))
            if self.take("("):
                return Call(token.text, tuple(self.arguments()), token.column)
            return Name(token.text, token.column)
        raise ExpressionError(f"expected a value, found {token.text or 'the end'!r}", token.column)

    def arguments(self) -> Iterator[Node]:
        if self.take(")"):
            return
        yield self.expression()
        while self.take(","):
            yield self.expression()
        self.expect(")")


def parse_expression(text: str) -> Node:
    """`temperature > 35` → tree. Raises ExpressionError with the column of the first fault."""
    parser = Parser(text)
    node = parser.expression()
    if len(parser.tokens) > MAX_TOKENS:
        said = f"more than {MAX_TOKENS} names, numbers and signs: split the rule"
        raise ExpressionError(said, parser.tokens[MAX_TOKENS].column)
    if parser.token.kind != "end":
        raise ExpressionError(f"expected the end, found {parser.token.text!r}", parser.token.column)
    return node


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, parents first."""
    yield node
    below: tuple[Node, ...] = ()
    if isinstance(node, Call):
        below = node.arguments
    elif isinstance(node, Arithmetic):
        below = (node.left, node.right)
    elif isinstance(node, Comparison | Logic):
        below = node.operands
    for child in below:
        yield from walk(child)


BINDING = {"or": 1, "and": 2, "not": 3, "comparison": 4, "+": 5, "-": 5, "*": 6, "/": 6}
"""Operator → how tightly it binds; what binds less stands in parentheses."""


def text_of(node: Node, outside: int = 0) -> str:
    """The expression as text again, with no more parentheses than it needs."""
    if isinstance(node, Number):
        return f"{node.value:.17g}" if node.value != int(node.value) else str(int(node.value))
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Window):
        return format_duration(node.length)
    if isinstance(node, Call):
        return f"{node.function}({', '.join(map(text_of, node.arguments))})"
    if isinstance(node, Arithmetic):
        binding = BINDING[node.operator]
        text = f"{text_of(node.left, binding)} {node.operator} {text_of(node.right, binding + 1)}"
    elif isinstance(node, Comparison):
        binding = BINDING["comparison"]
        text = text_of(node.operands[0], binding + 1)
        for operator, operand in zip(node.operators, node.operands[1:], strict=True):
            text += f" {operator} {text_of(operand, binding + 1)}"
    elif node.operator == "not":
        binding = BINDING["not"]
        text = f"not {text_of(node.operands[0], binding)}"
    else:
        binding = BINDING[node.operator]
        text = f" {node.operator} ".join(text_of(operand, binding + 1) for operand in node.operands)
    return f"({text})" if binding < outside else text
