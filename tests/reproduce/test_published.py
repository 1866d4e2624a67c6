"""The reports of docs/results: their Markdown and their pictures are of their JSON."""

import json
import pathlib

import numpy as np
import pytest

from resnet_jax.reproduce.figures import figure_of
from resnet_jax.reproduce.markdown import markdown

DOCS = pathlib.Path(__file__).parents[2] / "docs"
REPORTS = sorted(DOCS.glob("results/**/*.json"))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_the_markdown_and_the_picture_are_of_the_json(path):
    report = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == markdown(report)
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    drawn = [line for axes in figure_of(report).axes for line in axes.lines]
    data = [np.asarray(line.get_ydata()) for line in drawn]
    for row in report["rows"]:
        for split in ("train", "test") if "curves" in row else ():
            steps, errors = row["curves"][0][split]
            if split == "test" and "train_error" in row["values"]:
                continue
            mean = np.mean([run[split][1] for run in row["curves"]], axis=0)
            assert any(np.array_equal(mean, y) for y in data), (row["label"], split)
            assert len(steps) == len(errors)
        if "responses" in row:
            mean = np.mean([list(run.values()) for run in row["responses"]], axis=0)
            assert any(np.allclose(mean, y) for y in data if len(y) == len(mean)), row["label"]
    if report["kind"] in ("numbers", "sizes"):
        for row in report["rows"]:
            for value in row["values"].values():
                wanted = [v for v in (value["paper"], value["mean"]) if v is not None]
                found = {float(x) for line in drawn for x in np.ravel(line.get_xdata())}
                assert found.issuperset(wanted)


def test_the_claim_of_the_readme_holds_for_each_seed():
    """The deepest plain network is worse in training error, and the residual one is not."""
    report = json.loads((DOCS / "results" / "degradation.json").read_text())
    errors = {row["label"]: row["values"]["train_error"]["ours"] for row in report["rows"]}
    assert len(errors["plain-32"]) == 3
    for shallow, deep, residual in zip(
        errors["plain-8"], errors["plain-32"], errors["ResNet-32"], strict=True
    ):
        assert deep > shallow + 1
        assert residual < 1
