"""Patches reads of environment variables in Python code, by its syntax tree.

Run by strongroom migrate as python3 -I -S. It reads one request a line from standard input and
writes one answer a line, both JSON; nothing of what it patches is run or imported.

request: {"source": base64, "names": [variables that were moved]}
answer:  {"patched": base64, or absent if nothing changes,
          "notes": [[line, what no patch covers]],
          "left": why the whole file was left alone,
          "old", "new": both sources without their texts, comments and defaults, to be shown}
"""

import ast
import base64
import codecs
import io
import json
import re
import sys
import tokenize
import warnings

MODULE = "strongroom_dagster.env"
ALIAS = "strongroom_env"
MASK = "\u2022\u2022\u2022"
CHANGES = ("pop", "setdefault", "update", "__setitem__", "__delitem__", "clear", "popitem")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class LeftAlone(Exception):
    """The file stays as it is."""


class Text:
    """A source and its places: ast counts bytes of UTF-8 in a line, a text counts characters."""

    def __init__(self, text):
        self.text = text
        self.lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line, column):
        before = self.lines[line - 1].encode("utf-8")[:column]
        return self.starts[line - 1] + len(before.decode("utf-8"))

    def span(self, node):
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)


def decode(data):
    """The encoding that the file declares (PEP 263), its mark, and its text."""
    mark = b""
    if data.startswith(codecs.BOM_UTF8):
        mark = codecs.BOM_UTF8
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        if mark:
            encoding = "utf-8"
        text = data[len(mark) :].decode(encoding)
        if text.encode(encoding) != data[len(mark) :]:
            raise LeftAlone("its text is not the same again in its encoding")
    except (SyntaxError, LookupError, UnicodeError):
        raise LeftAlone("its text is not in the encoding that it declares")
    return encoding, mark, text


def parse(text, data):
    version = "%d.%d" % sys.version_info[:2]
    try:
        tree = ast.parse(text)
        compile(data, "<file>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise LeftAlone("line %d is not what Python %s reads" % (error.lineno or 1, version))
    except (ValueError, RecursionError, MemoryError, OverflowError):
        raise LeftAlone("it is not what Python %s reads" % version)
    return tree


def key_of(subscript):
    key = subscript.slice
    return key.value if type(key).__name__ == "Index" else key  # before Python 3.9


class Bindings:
    """Which names of a module are os, its environ and so on, and which are something else too."""

    def __init__(self, nodes):
        self.os, self.of, self.ours = set(), {}, {ALIAS + ".environ", ALIAS + ".getenv"}
        others = set()
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".")[0]
                    if alias.name == "os" or (first == "os" and not alias.asname):
                        self.os.add(alias.asname or "os")
                    else:
                        others.add(alias.asname or first)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if node.module == "os" and node.level == 0:
                        if alias.name == "*":
                            for name in ("environ", "getenv", "environb", "getenvb"):
                                self.of[name] = name
                        else:
                            self.of[alias.asname or alias.name] = alias.name
                    elif node.module == MODULE and node.level == 0:
                        self.ours.add(alias.asname or alias.name)
                    elif alias.name != "*":
                        others.add(alias.asname or alias.name)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                others.add(node.id)
            elif isinstance(node, ast.arg):
                others.add(node.arg)
            elif isinstance(node, FUNCTIONS):
                others.add(node.name)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                others.add(node.name)
            elif type(node).__name__ in ("MatchAs", "MatchStar") and node.name:
                others.add(node.name)
            elif type(node).__name__ == "MatchMapping" and node.rest:
                others.add(node.rest)
        if "os" not in others:
            self.os.add("os")  # from a star import, or from nowhere
        self.others = others

    def what(self, node):
        """environ, getenv and so on where node is that of os; and whether it is that for sure."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in self.os:
                return node.attr, node.value.id not in self.others
        if isinstance(node, ast.Name) and node.id in self.of:
            return self.of[node.id], node.id not in self.others
        return None, False

    def is_ours(self, node):
        """Whether node is the stand-in, as code was patched before or by hand."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.value.id + "." + node.attr in self.ours
        return isinstance(node, ast.Name) and node.id in self.ours


class Finder:
    """Finds what to patch and what no patch covers."""

    def __init__(self, tree, names):
        self.names = set(names)
        self.nodes, self.parent, self.inside = [], {}, {}
        self.docs = set()
        self.cuts = []  # nodes that become strongroom_env.WORD, with the word
        self.notes = set()
        self.known = set()  # constants that are spoken of
        self.defaults = set()  # expressions that stand in for a moved variable
        self._link(tree, None)
        self.bindings = Bindings(self.nodes)
        for node in self.nodes:
            if isinstance(node, FUNCTIONS + (ast.Module,)) and node.body:
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    self.docs.add(id(first.value))

    def _link(self, tree, joined):
        todo = [(tree, joined)]
        while todo:
            node, joined = todo.pop()
            self.nodes.append(node)
            if isinstance(node, ast.JoinedStr):
                joined = joined or node
            self.inside[id(node)] = joined
            for child in ast.iter_child_nodes(node):
                self.parent[id(child)] = node
                todo.append((child, joined))

    def note(self, node, why):
        self.notes.add((getattr(self.inside.get(id(node)) or node, "lineno", 1), why))

    def find(self):
        for node in self.nodes:
            word, sure = self.bindings.what(node)
            if word in ("environ", "getenv", "environb", "getenvb", "putenv", "unsetenv"):
                if isinstance(getattr(node, "ctx", None), ast.Load):
                    getattr(self, "_" + ("bytes" if word.endswith("b") else word))(node, sure)
            if self.bindings.is_ours(node):
                self._ours(node)
            if isinstance(node, ast.Call):
                self._call(node)
            elif isinstance(node, ast.ClassDef):
                self._settings(node)
        for node in self.nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                self._constant(node)
            elif isinstance(node, ast.keyword) and node.arg in self.names:
                self.note(node.value, node.arg + " is named: see who reads it")

    def _constant(self, node):
        if id(node) in self.known or id(node) in self.docs:
            return
        text = node.value
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        if text in self.names:
            self.note(node, text + " is named: see who reads it")
            return
        for name in re.findall(r"\$\{?(\w+)", text):
            if name in self.names:
                self.note(node, name + " is taken out of the environment by a text")
        if "environ" in text or "getenv" in text:
            for name in sorted(set(re.findall(r"\w+", text)) & self.names):
                self.note(node, name + " is named in a text that looks like code")

    def _name(self, node):
        """The variable that a constant names; None if it is no constant, "" if it is not moved."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            value = node.value
            if isinstance(value, bytes):
                value = value.decode("latin-1")
            if value not in self.names:
                return ""
            self.known.add(id(node))
            return value
        return None

    def _dynamic(self, node):
        self.note(node, "reads a variable whose name is not in the text: see which")

    def _whole(self, node):
        self.note(node, "takes the whole environment, which lacks what was moved")

    def _cut(self, node, word, name, sure):
        if sure:
            self.cuts.append((node, word))
        else:
            self.note(node, name + " is read by a name that is something else in this file, too")

    def _default(self, name, call, values):
        """A text that stands in the code in the place of a moved variable."""
        parent = self.parent.get(id(call))
        if isinstance(parent, ast.BoolOp) and isinstance(parent.op, ast.Or):
            values = values + [v for v in parent.values if v is not call]
        elif isinstance(parent, ast.IfExp):
            values = values + [v for v in (parent.body, parent.orelse) if isinstance(v, ast.Constant)]
        for value in values:
            for node in ast.walk(value):
                if isinstance(node, ast.Constant) and not isinstance(node.value, (bool, type(None))):
                    self.defaults.add(id(node))
                    long = isinstance(node.value, (str, bytes)) or len(str(node.value)) > 3
                    if long and node.value not in ("", b"") and node.value not in self.names:
                        self.note(
                            node,
                            "the default of %s is a secret in the code: take it out, and rotate it if it is real" % name,
                        )

    def _environ(self, node, sure):
        parent = self.parent[id(node)]
        if isinstance(parent, ast.Subscript) and parent.value is node:
            name = self._name(key_of(parent))
            if name:
                self._default(name, parent, [])
            if name is None:
                self._dynamic(node)
            elif name and not isinstance(parent.ctx, ast.Load):
                self.note(node, name + " is written, and Vault's variables are read-only")
            elif name:
                self._cut(node, "environ", name, sure)
        elif isinstance(parent, ast.Attribute):
            self._method(node, parent, sure)
        elif isinstance(parent, ast.Compare) and node in parent.comparators:
            at = parent.comparators.index(node)
            if not isinstance(parent.ops[at], (ast.In, ast.NotIn)):
                self._whole(node)
                return
            name = self._name(parent.left if at == 0 else parent.comparators[at - 1])
            if name is None:
                self._dynamic(node)
            elif name:
                self._default(name, parent, [])
                self._cut(node, "environ", name, sure)
        else:
            self._whole(node)

    def _ours(self, node):
        """A read of Vault: of that only the default is spoken of."""
        parent = self.parent[id(node)]
        if isinstance(parent, ast.Attribute):
            parent = self.parent[id(parent)]
        if isinstance(parent, ast.Subscript):
            self._name(key_of(parent))
        elif isinstance(parent, ast.Compare):
            self._name(parent.left)
        elif isinstance(parent, ast.Call) and parent.args:
            name = self._name(parent.args[0])
            if name:
                self._default(name, parent, parent.args[1:] + [k.value for k in parent.keywords])

    def _method(self, node, method, sure):
        call = self.parent[id(method)]
        if not (isinstance(call, ast.Call) and call.func is method):
            self._whole(node)
            return
        if method.attr == "get":
            self._get(node, "environ", call, sure)
        elif method.attr in CHANGES:
            named = [k.arg for k in call.keywords if k.arg in self.names]
            keys = list(call.args[:1])
            for a in call.args:
                if isinstance(a, ast.Dict):
                    keys += [k for k in a.keys if k is not None]
            found = [self._name(k) for k in keys]
            for name in named + [f for f in found if f]:
                self.note(
                    node,
                    name + " is changed by pop, setdefault or update, and Vault's variables are read-only",
                )
            if not named and method.attr in ("pop", "setdefault") and found[:1] == [None]:
                self._dynamic(node)
        elif method.attr in ("__getitem__", "__contains__"):
            name = self._name(call.args[0]) if call.args else None
            if name:
                self.note(node, name + " is read by " + method.attr)
            elif name is None:
                self._dynamic(node)
        else:
            self._whole(node)

    def _get(self, node, word, call, sure):
        keywords = {k.arg: k.value for k in call.keywords}
        key = call.args[0] if call.args else keywords.get("key")
        if key is None or isinstance(key, ast.Starred):
            self._dynamic(node)
            return
        name = self._name(key)
        if name is None:
            self._dynamic(node)
        elif name:
            self._default(name, call, call.args[1:] + [v for k, v in keywords.items() if k != "key"])
            if not call.args or set(keywords) - {"default"} or len(call.args) > 2:
                self.note(node, name + " is read with keywords that the stand-in does not have")
            else:
                self._cut(node, word, name, sure)

    def _getenv(self, node, sure):
        call = self.parent[id(node)]
        if isinstance(call, ast.Call) and call.func is node:
            self._get(node, "getenv", call, sure)
        else:
            self.note(node, "getenv is handed on: see which variables it reads")

    def _bytes(self, node, sure):
        parent = self.parent[id(node)]
        key = None
        if isinstance(parent, ast.Subscript) and parent.value is node:
            key = key_of(parent)
        elif isinstance(parent, ast.Compare):
            key = parent.left
        elif isinstance(parent, ast.Call) and parent.func is node and parent.args:
            key = parent.args[0]
        elif isinstance(parent, ast.Attribute):
            call = self.parent[id(parent)]
            if isinstance(call, ast.Call) and call.func is parent and call.args:
                key = call.args[0]
        name = None if key is None else self._name(key)
        if key is None:
            self._whole(node)
        elif name is None:
            self._dynamic(node)
        elif name:
            self.note(node, name + " is read as bytes, which the stand-in does not have")

    def _putenv(self, node, sure):
        call = self.parent[id(node)]
        if isinstance(call, ast.Call) and call.func is node and call.args:
            name = self._name(call.args[0])
            if name:
                self.note(node, name + " is written, and Vault's variables are read-only")

    _unsetenv = _putenv

    def _call(self, call):
        """Dagster's EnvVar, and os under another guise."""
        func = call.func
        if isinstance(func, ast.Attribute) and func.attr == "int":
            func = func.value
        called = getattr(func, "id", getattr(func, "attr", ""))
        if called == "EnvVar":
            values = call.args[:1] + [k.value for k in call.keywords]
            for value in values:
                name = self._name(value)
                if name:
                    self.note(
                        call,
                        "EnvVar(%s) reads the process's environment: give the resource VaultSecretsResource, "
                        "or run under strongroom env exec" % name,
                    )
        elif called == "getattr" and len(call.args) >= 2:
            first, second = call.args[:2]
            if isinstance(first, ast.Name) and first.id in self.bindings.os:
                if isinstance(second, ast.Constant) and second.value in ("environ", "getenv", "environb", "getenvb"):
                    self.note(call, "takes os.%s by its name: see which variables it reads" % second.value)

    def _settings(self, node):
        """Fields of pydantic's settings classes, which pydantic reads by itself."""
        bases = [getattr(b, "id", getattr(b, "attr", "")) for b in node.bases]
        if not any(b.endswith("Settings") for b in bases):
            return
        prefix = ""
        for inner in ast.walk(node):
            if isinstance(inner, ast.keyword) and inner.arg == "env_prefix" and isinstance(inner.value, ast.Constant):
                prefix = inner.value.value
            elif isinstance(inner, ast.Dict):
                for key, value in zip(inner.keys, inner.values):
                    if isinstance(key, ast.Constant) and key.value == "env_prefix" and isinstance(value, ast.Constant):
                        prefix = value.value
            elif isinstance(inner, ast.Assign) and any(getattr(t, "id", "") == "env_prefix" for t in inner.targets):
                if isinstance(inner.value, ast.Constant):
                    prefix = inner.value.value
        upper = {n.upper(): n for n in self.names}
        for field in node.body:
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            found = {upper.get((str(prefix) + field.target.id).upper(), "")}
            if field.value is not None:
                for part in ast.walk(field.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        if part.value.upper() in upper:
                            self.known.add(id(part))
                            found.add(upper[part.value.upper()])
            for name in sorted(found - {""}):
                self.note(
                    field,
                    name + " is read by pydantic: run under strongroom env exec, or give the field its value from "
                    + MODULE,
                )
                if isinstance(field.value, ast.Constant):
                    self._default(name, field.value, [field.value])


def same(text, span, node):
    """Whether what stands at span is node: before Python 3.12, places in f-strings are guesses."""
    try:
        found = ast.parse("(" + text[span[0] : span[1]] + ")", mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return ast.dump(found) == ast.dump(node)


def replacement(word):
    return ast.Attribute(ast.Name(ALIAS, ast.Load()), word, ast.Load())


class Replace(ast.NodeTransformer):
    def __init__(self, cuts):
        self.cuts = {id(node): word for node, word in cuts}

    def visit(self, node):
        if id(node) in self.cuts:
            return replacement(self.cuts[id(node)])
        return self.generic_visit(node)


def is_import(node):
    return isinstance(node, ast.Import) and any(a.name == MODULE and a.asname == ALIAS for a in node.names)


def is_future(node):
    return isinstance(node, ast.ImportFrom) and node.module == "__future__" and node.level == 0


def head(body):
    """How many statements must stay first."""
    n = 0
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        if isinstance(body[0].value.value, str):
            n = 1
    while n < len(body) and is_future(body[n]):
        n += 1
    return n


def insertion(source, tree, cuts):
    """Where the import goes: the statement in front of which, the offset and the text; or None."""
    body, ids = tree.body, {id(node) for node, _ in cuts}
    for index in range(head(body), len(body)):
        statement = body[index]
        if is_import(statement):
            return None
        cut = any(id(n) in ids for n in ast.walk(statement))
        if not cut and not isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        first = statement
        if isinstance(statement, FUNCTIONS) and statement.decorator_list:
            first = min([statement] + statement.decorator_list, key=lambda n: n.lineno)
        line = first.lineno
        text = "import %s as %s" % (MODULE, ALIAS)
        start = source.starts[line - 1]
        at = source.at(first.lineno, first.col_offset)
        if first is not statement or not source.text[start:at].strip(" \t\f"):
            ends = re.search(r"\r\n|\r|\n", source.text)
            return index, start, text + (ends.group() if ends else "\n")
        return index, at, text + "; "
    raise LeftAlone("no place for an import was found")


def apply(source, tree, cuts):
    """The patched text, proved to be the old tree with the cuts and the import and nothing else."""
    pieces = [(source.span(node), ALIAS + "." + word) for node, word in cuts]
    place = insertion(source, tree, cuts)
    if place is not None:
        pieces.append(((place[1], place[1]), place[2]))
    text, at = "", 0
    for (start, end), new in sorted(pieces):
        if start < at:
            raise LeftAlone("two changes meet")
        text += source.text[at:start] + new
        at = end
    text += source.text[at:]
    return text, place


def proved(new, patched, tree, text, cuts, place, defaults):
    """The new tree and its defaults; None if it is not the old one with the cuts and the import."""
    try:
        after = parse(new, patched)
    except LeftAlone:
        return None, None
    fresh = ast.parse(text)
    twins = dict(zip((id(n) for n in ast.walk(tree)), ast.walk(fresh)))
    stand_ins = {id(twins[i]) for i in defaults}
    fresh = Replace([(twins[id(node)], word) for node, word in cuts]).visit(fresh)
    body = list(after.body)
    if place is not None:
        if not is_import(body[place[0]]):
            return None, None
        del body[place[0]]
    bare = ast.Module(body=body, type_ignores=[])
    if ast.dump(bare) != ast.dump(ast.Module(body=fresh.body, type_ignores=[])):
        return None, None
    pairs = zip(ast.walk(ast.Module(body=fresh.body, type_ignores=[])), ast.walk(bare))
    return after, {id(there) for here, there in pairs if id(here) in stand_ins}


def shown(text, tree, names, defaults):
    """The text without what could be a secret: texts, comments, and defaults that are numbers."""
    source, spans, blind = Text(text), [], set()
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Constant, ast.JoinedStr)):
            continue
        if isinstance(node, ast.JoinedStr):
            if sys.version_info < (3, 12):
                blind.update(id(n) for n in ast.walk(node) if n is not node)
                spans.append((source.span(node), '"%s"' % MASK))
            continue
        value = node.value
        if id(node) in blind or value in names or isinstance(value, (bool, type(None), type(...))):
            continue
        if isinstance(value, (str, bytes)):
            if len(value) > 3 or id(node) in defaults:
                span = source.span(node)
                bare = text[span[0] : span[0] + 1] not in "rRbBuUfF\"'"
                spans.append((span, MASK if bare else '"%s"' % MASK))
        elif id(node) in defaults:
            spans.append((source.span(node), MASK))
    comments = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
            declares = token.start[0] <= 2 and re.match(r"#!|#.*coding[:=]", token.string)
            if token.type == tokenize.COMMENT and not declares:
                start = source.starts[token.start[0] - 1] + token.start[1]
                if text[start : start + 1] != "#":
                    return ""  # lines are counted otherwise: rather nothing than a comment
                comments.append(((start, start + len(token.string.rstrip("\r\n"))), "# " + MASK))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return ""
    out, at = "", 0
    for (start, end), new in sorted(spans + comments):
        if start < at:
            continue
        lines = re.findall(r"\r\n|\r|\n", text[start:end])
        out += text[at:start] + new + "".join(lines)
        at = end
    return out + text[at:]


def answer(data, names):
    encoding, mark, text = decode(data)
    tree = parse(text, data)
    source = Text(text)
    finder = Finder(tree, names)
    finder.find()
    out = {}
    good, guessed = [], []
    for node, word in finder.cuts:
        span = source.span(node)
        if same(text, span, node):
            (guessed if finder.inside[id(node)] is not None else good).append((node, word))
        else:
            finder.note(node, "a variable is read in an f-string: change it by hand")
    bound = bool(good or guessed) and any(
        (isinstance(n, ast.Name) and n.id == ALIAS and not isinstance(n.ctx, ast.Load))
        or (isinstance(n, ast.alias) and (n.asname or n.name) == ALIAS and n.name != MODULE)
        or (isinstance(n, (ast.arg,)) and n.arg == ALIAS)
        for n in finder.nodes
    )
    if bound:
        for node, _ in good + guessed:
            finder.note(node, "a variable is read here, and %s is something else in this file" % ALIAS)
        good = guessed = []
    for cuts in (good + guessed, good):
        if not cuts:
            continue
        new, place = apply(source, tree, cuts)
        try:
            patched = mark + new.encode(encoding)
        except UnicodeError:
            raise LeftAlone("the patch cannot be written in its encoding")
        after, defaults = proved(new, patched, tree, text, cuts, place, finder.defaults)
        if after is None:
            continue
        kept = {id(n) for n, _ in cuts}
        for node, _ in good + guessed:
            if id(node) not in kept:
                finder.note(node, "a variable is read in an f-string: change it by hand")
        out["patched"] = base64.b64encode(patched).decode("ascii")
        out["old"] = shown(text, tree, finder.names, finder.defaults)
        out["new"] = shown(new, after, finder.names, defaults)
        break
    else:
        for node, _ in good + guessed:
            finder.note(node, "a variable is read here, and no patch could be proved right: change it by hand")
    out["notes"] = sorted(finder.notes)
    return out


def main():
    if sys.version_info < (3, 8):
        sys.exit(1)  # it does not know where a node ends
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(5000)
    sys.stdout.write(json.dumps({"version": "%d.%d" % sys.version_info[:2]}) + "\n")
    sys.stdout.flush()
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        try:
            out = answer(base64.b64decode(request["source"]), request["names"])
        except LeftAlone as why:
            out = {"left": str(why)}
        except (RecursionError, MemoryError):
            out = {"left": "it is nested too deeply"}
        sys.stdout.write(json.dumps(out) + "\n")
        sys.stdout.flush()


main()
