"""Every test sees eight devices, and no silent change of type or rank."""

import fsspec
import jax
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


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
