"""What TensorBoard would read."""

import math
import struct
import subprocess
import sys

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore[missing-module-attribute]

from resnet_jax.training.tensorboard import TensorBoard


def read_events(path):
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("Q", content)
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def scalars(folder):
    """Returns what TensorBoard shows, which drops what a later start of the run replaces."""
    shown = []
    for path in sorted(folder.iterdir()):
        for event in read_events(path):
            if event.session_log.status == SessionLog.START:
                shown = [entry for entry in shown if entry[0] < event.step]
            shown += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return shown


def test_scalars_by_split(tmp_path):
    board = TensorBoard(tmp_path / "events", resume_step=0)
    board.write(10, "train", {"loss": 0.5, "top1_error": 12.5})
    board.write(10, "test", {"top1_error": math.nan})
    board.file.close()
    (path,) = (tmp_path / "events").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    assert read_events(path)[0].file_version == "brain.Event:2"
    first, second, third = scalars(tmp_path / "events")
    assert [first, second] == [(10, "train/loss", 0.5), (10, "train/top1_error", 12.5)]
    assert third[:2] == (10, "test/top1_error")
    assert math.isnan(third[2])


def test_replayed_steps_replace_the_old_ones_within_a_second(tmp_path):
    for resume_step, value in ((0, 1.0), (2, 2.0), (2, 3.0)):
        board = TensorBoard(tmp_path, resume_step=resume_step)
        for step in range(resume_step + 1, 5):
            board.write(step, "train", {"loss": value})
        board.file.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert [(step, value) for step, _, value in scalars(tmp_path)] == [
        (1, 1.0),
        (2, 1.0),
        (3, 3.0),
        (4, 3.0),
    ]


def test_what_was_flushed_is_there_without_close(tmp_path):
    board = TensorBoard(tmp_path, resume_step=0)
    for step in range(100):
        board.write(step, "train", {"loss": 1.0})
    board.file.sync()
    assert len(scalars(tmp_path)) == 100
    board.file.close()


def test_in_an_object_store(object_store):
    board = TensorBoard(object_store, resume_step=0)
    board.write(1, "train", {"loss": 1.0})
    board.file.sync()
    assert scalars(object_store) == [(1, "train/loss", 1.0)]
    board.write(2, "train", {"loss": 0.5})
    board.file.close()
    assert scalars(object_store) == [(1, "train/loss", 1.0), (2, "train/loss", 0.5)]


def test_the_records_are_those_of_tensorboardx(tmp_path):
    board = TensorBoard(tmp_path, resume_step=0)
    board.write(1, "train", {"loss": 1.0})
    board.file.close()
    (path,) = tmp_path.iterdir()
    writer = RecordWriter(str(tmp_path / "theirs"))
    for event in read_events(path):
        writer.write(event.SerializeToString())
    writer.close()
    assert (tmp_path / "theirs").read_bytes() == path.read_bytes()


def test_importing_training_imports_neither_torch_nor_matplotlib():
    code = "import sys, resnet_jax.training\n"
    code += "assert not {'torch', 'matplotlib'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
