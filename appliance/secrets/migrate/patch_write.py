"""Patches reads of environment variables in Python code: the patched text, proved, and what is shown of it."""


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
