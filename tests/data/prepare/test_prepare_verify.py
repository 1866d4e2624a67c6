import pathlib

import pytest

from resnet_jax import InputError
from resnet_jax.data.manifest import verify
from resnet_jax.data.prepare import prepare
from tests.data.prepare.preparing import SETTINGS, folder, opened  # noqa: F401


def test_every_changed_file_is_found(folder, tmp_path):
    place = pathlib.Path(prepare(opened(folder), tmp_path, "photos", settings=SETTINGS))
    files = sorted(path for path in place.iterdir() if path.name != "manifest.json")
    assert len(files) == 9
    for path in files:
        content = path.read_bytes()
        for changed in (content[:-1] + bytes([content[-1] ^ 1]), content[:-1]):
            path.write_bytes(changed)
            with pytest.raises(InputError) as error:
                verify(tmp_path, "photos")
            assert str(error.value) == (
                f"{path} is not what was written; delete the folder and prepare it again"
            )
        path.unlink()
        with pytest.raises(InputError):
            verify(tmp_path, "photos")
        path.write_bytes(content)
    verify(tmp_path, "photos")


def test_what_cannot_be_verified_is_said(folder, tmp_path):
    def refused():
        with pytest.raises(InputError) as error:
            verify(tmp_path, "photos")
        assert str(error.value) == (
            f"{tmp_path}/photos/1.0.0 has no manifest.json of a finished data set; prepare it, or "
            "delete the folder and prepare it again"
        )

    with pytest.raises(InputError) as error:
        verify(tmp_path, "photos")
    assert str(error.value) == f"there is no prepared data set {tmp_path}/photos/1.0.0"
    place = prepare(opened(folder), tmp_path, "photos", settings=SETTINGS)
    for content in ('{"format": 9}', "{", "[]"):
        (place / "manifest.json").write_text(content)
        refused()
