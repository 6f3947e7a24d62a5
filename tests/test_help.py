"""`help()` of everything public says something, and stumbles over nothing."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import pydoc
import re
import typing

import msgspec
import pytest

import fluence_async
from fluence_async import options

MODULES = [
    "fluence_async",
    *(
        module.name
        for module in pkgutil.walk_packages(fluence_async.__path__, "fluence_async.")
        if "._" not in module.name
    ),
]
PARAMS = [
    options.CallOptions,
    options.ChatParams,
    options.CompletionParams,
    options.ParseParams,
    options.ToolRunParams,
]


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_and_all_it_offers_have_a_help(name: str) -> None:
    module = importlib.import_module(name)
    assert pydoc.render_doc(module)
    for symbol in getattr(module, "__all__", ()):
        item = getattr(module, symbol)
        if not isinstance(item, str):  # pydoc takes a text for the name of what is meant
            assert pydoc.render_doc(item), symbol
        if inspect.isclass(item) and issubclass(item, msgspec.Struct):
            assert inspect.signature(item), symbol


@pytest.mark.parametrize("params", PARAMS, ids=lambda params: params.__name__)
def test_chat_params_tell_every_parameter_that_a_call_takes(params: type) -> None:
    told = re.findall(r"^ {4,8}(\w+): ", inspect.getdoc(options.ChatParams) or "", re.MULTILINE)
    assert len(told) == len(set(told))
    assert typing.get_type_hints(params).keys() <= set(told)
