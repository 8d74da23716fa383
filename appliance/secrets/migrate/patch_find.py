"""Patches reads of environment variables in Python code: what to patch, and what no patch covers."""


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
        text = text_of(node)
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
            value = text_of(node)
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
            pairs = []
            if isinstance(inner, ast.keyword):
                pairs = [(inner.arg, inner.value)]
            elif isinstance(inner, ast.Dict):
                pairs = [(getattr(key, "value", None), value) for key, value in zip(inner.keys, inner.values)]
            elif isinstance(inner, ast.Assign):
                pairs = [(getattr(target, "id", None), inner.value) for target in inner.targets]
            for name, value in pairs:
                if name == "env_prefix" and isinstance(value, ast.Constant):
                    prefix = value.value
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
