import pytest


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Draws no curves, which take a third of a second each; runs of a module's fixtures do."""
    monkeypatch.setattr("resnet_jax.training.logging.draw_curves", lambda *_, **__: None)
