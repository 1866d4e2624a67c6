"""Every test sees eight devices, and no silent change of type or rank."""

import atexit
import os
import shutil
import tempfile

import fsspec
import jax
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy one may take seconds
settings.load_profile("any machine")

# Most tests compile the same few programs; worker and child processes find the folder here, too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = tempfile.mkdtemp(prefix="resnet_jax-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Puts the folders that take longest first, so that no worker works alone at the end."""
    first = {"tests", "training", "models", "pins"}
    items.sort(key=lambda item: item.path.parent.name not in first)


class MemoryStore(MemoryFileSystem):
    """An object store in memory, under the name of one that is not."""

    protocol = ("gcs", "gs")

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("gs://"))


@pytest.fixture
def object_store(monkeypatch):
    """The path of an empty folder `gs://bucket/folder`."""
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    fsspec.register_implementation("gcs", MemoryStore, clobber=True)
    MemoryStore.store.clear()
    MemoryStore.pseudo_dirs[:] = ["", "/bucket"]
    return epath.Path("gs://bucket/folder")
