"""Checks of the source text: unsafe calls, lengths, public names and docstrings. Standard library only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIBRARY = ("kvlp", "knowledge", "datasets", "eval")
MAX_FILE, MAX_FUNCTION = 500, 80

#: modules that run code from data; nobody in the library imports them
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
#: keyword arguments that open a door when they are True
FORBIDDEN_KEYWORDS = {"allow_pickle", "trust_remote_code", "shell"}
#: a call with this last part is refused wherever it stands
FORBIDDEN_CALLS = {"extractall", "mktemp", "unsafe_load", "full_load"}
FORBIDDEN_BARE_CALLS = {"eval", "exec", "compile", "__import__"}
SAFE_YAML_LOADERS = {"SafeLoader", "CSafeLoader"}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Finding:
    """One thing that a gate refuses, at one place."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def python_files(root: Path, folders: tuple[str, ...]) -> list[Path]:
    """List the Python files below `folders` of `root`, sorted."""
    return sorted(p for f in folders for p in (root / f).rglob("*.py") if "__pycache__" not in p.parts)


def check_sources(root: Path) -> list[Finding]:
    """Run every gate over the checkout at `root`."""
    found: list[Finding] = []
    for path in python_files(root, (*LIBRARY, "tests", "examples", ".ci")):
        source = path.read_text(encoding="utf-8")
        where = path.relative_to(root).as_posix()
        tree = ast.parse(source, filename=where)
        found += length_findings(where, source, tree)
        if not where.startswith("tests/"):
            found += safety_findings(where, tree)
        if where.split("/")[0] in LIBRARY:
            found += public_findings(where, tree)
    return found


def length_findings(where: str, source: str, tree: ast.Module) -> Iterator[Finding]:
    """Refuse files above MAX_FILE lines and functions above MAX_FUNCTION lines, docstring included."""
    lines = source.count("\n")
    if lines > MAX_FILE:
        yield Finding(where, 1, f"file has {lines} lines; at most {MAX_FILE}: split it by meaning")
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            if length > MAX_FUNCTION:
                yield Finding(where, node.lineno, f"function {node.name} has {length} lines; at most {MAX_FUNCTION}")


def safety_findings(where: str, tree: ast.Module) -> Iterator[Finding]:
    """Refuse what runs code from data: pickles, unsafe YAML, shells, eval, unsafe torch.load, archive extraction."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _unsafe_import(where, node)
        elif isinstance(node, ast.Call):
            reason = _unsafe_call(node)
            if reason:
                yield Finding(where, node.lineno, reason)


def _unsafe_import(where: str, node: ast.Import | ast.ImportFrom) -> Iterator[Finding]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    for name in names:
        if name.split(".")[0] in FORBIDDEN_MODULES:
            yield Finding(where, node.lineno, f"imports {name}: it can run code from data")


def _unsafe_call(node: ast.Call) -> str | None:
    name = ast.unparse(node.func)
    last = name.rsplit(".", 1)[-1]
    keywords = {k.arg: k.value for k in node.keywords if k.arg}
    for keyword in FORBIDDEN_KEYWORDS & set(keywords):
        if not _is_constant(keywords[keyword], False):
            return f"{last}({keyword}=...) is refused; leave it at False"
    if name in {"torch.load", "load"} and name == "torch.load" and not _is_constant(keywords.get("weights_only"), True):
        return "torch.load needs weights_only=True"
    if name == "yaml.load" and not _names_safe_loader(node, keywords):
        return "yaml.load needs a SafeLoader; use yaml.safe_load"
    if name in FORBIDDEN_BARE_CALLS or name in {"os.system", "os.popen"} or last in FORBIDDEN_CALLS:
        return f"{name}(...) is refused"
    return None


def _is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _names_safe_loader(node: ast.Call, keywords: dict[str, ast.expr]) -> bool:
    loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
    return loader is not None and ast.unparse(loader).rsplit(".", 1)[-1] in SAFE_YAML_LOADERS


def public_findings(where: str, tree: ast.Module) -> Iterator[Finding]:
    """Refuse a missing or wrong `__all__`, and an exported function or class without a docstring.

    What a module leaves out of `__all__` is for its own room; a package has nothing beside its `__all__`.
    """
    if where.startswith("kvlp/cli/") and not where.endswith("__init__.py"):
        return  # a verb's module is reached by its verb, not by its names
    here = {n.name: n for n in tree.body if isinstance(n, FunctionNode | ast.ClassDef) and not n.name.startswith("_")}
    declared = _declared_names(tree)
    if declared is None:
        if here:
            yield Finding(where, 1, f"no __all__, but public names: {', '.join(sorted(here))}")
        return
    if len(set(declared)) != len(declared):
        yield Finding(where, 1, "__all__ names something twice")
    lazy = any(isinstance(n, ast.FunctionDef) and n.name == "__getattr__" for n in tree.body)
    for name in sorted(set(declared) - _bound_names(tree)):
        if not lazy:
            yield Finding(where, 1, f"__all__ names {name}, which is not there")
    if where.endswith("__init__.py"):
        for name in sorted(set(here) - set(declared)):
            yield Finding(where, here[name].lineno, f"{name} is public but not in __all__: add it, or call it _{name}")
    for name in sorted(set(here) & set(declared)):
        if ast.get_docstring(here[name]) is None:
            yield Finding(where, here[name].lineno, f"{name} is exported without a docstring")


def _declared_names(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets) and isinstance(
            node.value, ast.List | ast.Tuple
        ):
            return [e.value for e in node.value.elts if isinstance(e, ast.Constant)]
    return None


def _bound_names(tree: ast.Module) -> set[str]:
    """Names that the module binds anywhere at its top, conditional blocks included, functions' insides left out."""
    names: set[str] = set()
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, FunctionNode | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        todo += ast.iter_child_nodes(node)
    return names
