import pathlib

import pytest

from resnet_jax import InputError
from resnet_jax.data.prepare import prepare, verify
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
    with pytest.raises(InputError) as error:
        verify(tmp_path, "photos")
    assert str(error.value) == f"there is no prepared data set {tmp_path}/photos/1.0.0"
    place = prepare(opened(folder), tmp_path, "photos", settings=SETTINGS)
    (place / "manifest.json").write_text('{"format": 9}')
    with pytest.raises(InputError) as error:
        verify(tmp_path, "photos")
    assert str(error.value) == f"another version of resnet_jax prepared {place}"
    (place / "manifest.json").write_text("{")
    with pytest.raises(InputError) as error:
        verify(tmp_path, "photos")
    assert str(error.value) == (
        f"{place} has no manifest.json that can be read, so that there is nothing to compare it "
        "with"
    )
