"""What all tests share."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[2]

settings.register_profile(
    "ci", max_examples=int(os.environ.get("PACKBUF_CASES", "150")), deadline=None, suppress_health_check=list(HealthCheck), derandomize="PACKBUF_CASES" not in os.environ
)
settings.load_profile("ci")


def need(what: object, reason: str) -> None:
    """Skips honestly; where CI=true a skipped test is a failure."""
    if what:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason + ": a failure where CI=true")
    pytest.skip(reason)


def spec_reader():
    """The module of the reader that comes with the spec."""
    spec = importlib.util.spec_from_file_location("reader", ROOT / "spec" / "reader.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def torch():
    try:
        import torch
    except ImportError:
        torch = None
    need(torch, "torch is not installed")
    return torch


@pytest.fixture
def command() -> str:
    """The packbuf command of this tree."""
    path = os.environ.get("PACKBUF_COMMAND") or str(ROOT / "build" / "packbuf")
    need(shutil.which(path), f"there is no command {path}: run make")
    return path
