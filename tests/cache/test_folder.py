"""The path of a cache's folder; what is removed from it is tested in ``test_cache.py``."""

from featx import EmbeddingCache
from featx.cache.folder import default_cache_path


def test_path_default_is_environment_or_user_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "mine"))
    assert EmbeddingCache().path == tmp_path / "mine"
    monkeypatch.delenv("FEATX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    assert default_cache_path().name == "featx"
