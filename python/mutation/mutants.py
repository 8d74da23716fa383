"""All the mutants of a module: what a slip of the hand might make of each line of it."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import CodeType

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
#: What only speaks: messages are read by people, and tests hold those that matter.
_SPOKEN = frozenset({"__repr__", "describe", "label"})
_TEXTS = frozenset({"log", "warnings"})


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        line: in the module.
        what: where and what the change is, in words.
        source: the whole module with it.
        lines: those of the statement that it is in.
        around: those of the function that it is in.
        first_line: of that function's code, decorators included; None if it is in none's body.
    """

    line: int
    what: str
    source: str
    lines: range
    around: range
    first_line: int | None

    def code(self, file: str) -> CodeType | None:
        """The changed function, compiled; None if it is in none's body."""
        if self.first_line is None:
            return None
        names = self.what.split(":")[0].split(".")
        code = compile(self.source, file, "exec", dont_inherit=True)
        while names:
            inner = [c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == names[0]]
            if len(inner) != 1:
                return None  # a property and its setter
            code = inner[0]
            names = names[1:]
            if code.co_flags & inspect.CO_NEWLOCALS:
                return code
        return None


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a module's source, in the order of its lines."""
    tree = ast.parse(source)
    found = []
    for path, node in _walk(tree, ()):
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            parent, here = _follow(changed, path)
            new = change(here)
            _put(parent, path[-1], new)
            text = ast.unparse(ast.fix_missing_locations(changed))
            lines, around, first_line = _reach(tree, path)
            what = f"{_place(tree, path)}: {what}"
            found.append(Mutant(getattr(node, "lineno", 0), what, text, lines, around, first_line))
    return sorted(found, key=lambda m: m.line)


Step = tuple[str, int | None]


def _reach(tree: ast.AST, path: tuple[Step, ...]) -> tuple[range, range, int | None]:
    """The lines of the innermost statement and of the outermost function, and that one's first."""
    lines = around = range(0)
    first_line = None
    for end in range(1, len(path) + 1):
        _, node = _follow(tree, path[:end])
        if isinstance(node, ast.stmt):
            last = node.end_lineno or node.lineno
            body = getattr(node, "body", None)
            lines = range(node.lineno, (body[0].lineno - 1 if body else last) + 1)
            lines = lines or range(node.lineno, node.lineno + 1)
        if isinstance(node, ast.FunctionDef) and first_line is None:
            around = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if end < len(path) and path[end][0] == "body":
                first_line = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return lines, around, first_line


def _place(tree: ast.AST, path: tuple[Step, ...]) -> str:
    """The class and the function, `Class.function`."""
    names = []
    for end in range(1, len(path) + 1):
        _, node = _follow(tree, path[:end])
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
    return ".".join(names) or "module"


def _walk(node: ast.AST, path: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], ast.AST]]:
    if isinstance(node, ast.FunctionDef) and node.name in _SPOKEN:
        return
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.AnnAssign) and path:
        if isinstance(node, ast.Raise):
            yield path, node
            return
        if isinstance(node, ast.JoinedStr):
            return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Expr) and _speaks(node):
        return
    if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
        return  # for the type checker
    if path:
        yield path, node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        if isinstance(value, ast.AST):
            yield from _walk(value, (*path, (name, None)))
        elif isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from _walk(item, (*path, (name, number)))


def _speaks(node: ast.Expr) -> bool:
    if isinstance(node.value, ast.Constant):
        return True  # a docstring
    call = node.value
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        return isinstance(call.func.value, ast.Name) and call.func.value.id in _TEXTS
    return False


def _follow(tree: ast.AST, path: tuple[Step, ...]) -> tuple[ast.AST, ast.AST]:
    parent, node = tree, tree
    for name, number in path:
        parent = node
        value = getattr(node, name)
        node = value if number is None else value[number]
    return parent, node


def _put(parent: ast.AST, step: Step, node: ast.AST) -> None:
    name, number = step
    if number is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[number] = node


Change = Callable[[ast.AST], ast.AST]


def _instead(new: ast.AST, _: ast.AST) -> ast.AST:
    return new


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    old = ast.unparse(node).splitlines()[0][:70] if hasattr(node, "lineno") else ""

    def to(new: Callable[[], ast.AST]) -> Change:
        return lambda _: new()

    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARED:
            new = copy.deepcopy(node)
            new.ops = [_COMPARED[type(op)]()]
            yield f"{old} -> {ast.unparse(new)}", to(lambda: new)
        case ast.BoolOp():
            for part in node.values:
                rest = [other for other in node.values if other is not part]
                less = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
                yield f"{old} without {ast.unparse(part)[:40]}", partial(_instead, less)
        case ast.UnaryOp(op=ast.Not()):
            yield f"{old} without not", to(lambda: node.operand)
        case ast.Constant(value=bool()):
            yield f"{old} -> {not node.value}", to(lambda: ast.Constant(not node.value))
        case ast.Constant(value=int() | float() as number):
            yield f"{old} -> {number + 1}", to(lambda: ast.Constant(number + 1))
        case ast.BinOp(op=op) if type(op) in _COMPUTED:
            other = copy.deepcopy(node)
            other.op = _COMPUTED[type(op)]()
            yield f"{old} -> {ast.unparse(other)}", to(lambda: other)
        case ast.Call(func=ast.Name(id=name)) if name in _CALLED and len(node.args) > 0:
            call = copy.deepcopy(node)
            call.func = ast.Name(_CALLED[name], ast.Load())
            yield f"{old} -> {_CALLED[name]}", to(lambda: call)
        case ast.IfExp():
            yield f"{old}: always the first", to(lambda: node.body)
            yield f"{old}: always the second", to(lambda: node.orelse)
        case ast.If() | ast.While() if not isinstance(node.test, ast.Compare):
            other_if = copy.deepcopy(node)
            other_if.test = ast.UnaryOp(ast.Not(), node.test)
            yield f"{old} -> not", to(lambda: other_if)
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield f"{old} -> None", to(lambda: ast.Return(ast.Constant(None)))
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Continue():
            yield f"{old} left out", to(ast.Pass)
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield f"{old} left out", to(ast.Pass)
