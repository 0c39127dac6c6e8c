"""How to get an extra is said as it works: in the checkout, or from where the installed package came."""

from __future__ import annotations

import importlib.metadata

import pytest

from gpuconv import extras

ORIGINS = {
    "index": (None, "pip install 'gpuconv[onnx]'"),
    "wheel": (
        '{"archive_info": {}, "url": "file:///a/gpuconv-0.1.0-py3-none-any.whl"}',
        "pip install 'gpuconv[onnx] @ file:///a/gpuconv-0.1.0-py3-none-any.whl'",
    ),
    "folder": ('{"dir_info": {}, "url": "file:///a%20b"}', "pip install 'gpuconv[onnx] @ file:///a%20b'"),
    "repository": (
        '{"vcs_info": {"vcs": "git", "commit_id": "1"}, "url": "https://host/gpuconv"}',
        "pip install 'gpuconv[onnx] @ git+https://host/gpuconv'",
    ),
    "damaged": ("{", "pip install 'gpuconv[onnx]'"),
    "of_another_kind": ("[1]", "pip install 'gpuconv[onnx]'"),
}


@pytest.mark.parametrize(("direct_url", "command"), ORIGINS.values(), ids=ORIGINS.keys())
def test_an_installed_package_is_installed_again_from_where_it_came(direct_url, command, monkeypatch, tmp_path):
    class Distribution:
        def read_text(self, name):
            return {"direct_url.json": direct_url}[name]

    monkeypatch.setattr(extras, "__file__", str(tmp_path / "gpuconv" / "extras.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", {"gpuconv": Distribution()}.__getitem__)
    extras._origin.cache_clear()
    assert extras.install("onnx") == command
    extras._origin.cache_clear()


def test_a_checkout_says_so():
    assert extras.install("onnx") == "pip install -e '.[onnx]' in the checkout"
    known = importlib.metadata.metadata("gpuconv").get_all("Provides-Extra")
    assert {"onnx", "plots", "pictures", "tensorboard", "fast", "cuda12x", "cuda13x", "bench"} <= set(known)
