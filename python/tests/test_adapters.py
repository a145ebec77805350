"""What the READMEs of the adapters say: the tests they name are there, and what they show runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

ADAPTERS = {"mooncake": "test_structured_store.py", "specforge": "test_feature_store.py", "transferqueue": "test_transferqueue.py"}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_named_tests_exist(adapter):
    text = (ROOT / "examples" / adapter / "README.md").read_text()
    source = (ROOT / "python" / "tests" / ADAPTERS[adapter]).read_text()
    of_others = {"test_structured_object_store", "test_fast_copy", "test_put_get_tensor", "test_dataproto_catalog", "test_buffer_pool_native", "test_tensor_utils", "test_mooncake_utils", "test_serial_utils", ADAPTERS[adapter][:-3]}
    named = set(re.findall(r"\btest_\w+", text)) - of_others
    assert named and not [name for name in named if f"def {name}(" not in source]


def test_what_specforge_shows():
    pytest.importorskip("torch")
    text = (ROOT / "examples" / "specforge" / "README.md").read_text()
    (shown,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = shown.replace("shm:features", f"shm:readme-{os.getpid()}") + "assert tensors['input_ids'].tolist() == list(range(7))"
    path = {**os.environ, "PYTHONPATH": str(ROOT / "examples" / "specforge")}
    subprocess.run([sys.executable, "-c", code], env=path, check=True)
