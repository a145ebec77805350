"""What the package shows: every name is listed and documented, and the stubs of its C++ half have what that half has."""

import ast
import inspect
import pathlib
import re

import packbuf
from packbuf import _core

STUB = pathlib.Path(packbuf.__file__).with_name("_core.pyi")


def test_every_name_is_listed_and_documented():
    shown = {name for name in vars(packbuf) if not name.startswith("_")}
    assert shown == set(packbuf.__all__) and len(packbuf.__all__) == len(shown)
    for name in packbuf.__all__:
        thing = getattr(packbuf, name)
        assert name == "MISSING" or inspect.getdoc(thing), name
        for own, member in vars(thing).items() if inspect.isclass(thing) else ():
            if not own.startswith("_") and (callable(member) or isinstance(member, (property, staticmethod, classmethod))):
                assert inspect.getdoc(getattr(thing, own)), f"{name}.{own}"


def arguments(function: ast.FunctionDef) -> int:
    return len(function.args.posonlyargs + function.args.args + function.args.kwonlyargs)


def told(function: object) -> int:
    """How many arguments the binding says it takes."""
    ((signature, *_),) = function.__nb_signature__
    signature = re.sub(r"\\\d+", "None", signature)  # where a default stands
    return arguments(ast.parse(f"{signature}: ...").body[0])


def public(things) -> set[str]:
    return {name for name in things if not name.startswith("_")}


def test_stubs_are_the_binding():
    tree = ast.parse(STUB.read_text()).body
    classes = {node.name: node for node in tree if isinstance(node, ast.ClassDef)}
    functions = {node.name: node for node in tree if isinstance(node, ast.FunctionDef)}
    words = {node.target.id for node in tree if isinstance(node, ast.AnnAssign)}
    assert {*classes, *functions, *words} == public(vars(_core))
    for name, node in functions.items():
        assert arguments(node) == told(getattr(_core, name)), name
    for name, node in classes.items():
        members = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef)}
        assert public(members) == public(vars(getattr(_core, name))), name
        for own, stub in members.items():
            member = inspect.getattr_static(getattr(_core, name), own, None)
            if hasattr(member, "__nb_signature__"):
                assert arguments(stub) == told(member), f"{name}.{own}"


def test_help_shows_no_binding():
    """What people meet has signatures of its own, not those of the C++ half."""
    for thing in (packbuf.Ref, packbuf.Packed):
        for own in public(vars(thing)):
            assert "_core" not in (inspect.getdoc(getattr(thing, own)) or ""), own
