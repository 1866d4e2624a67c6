"""Views: which parts of an image a network sees, and at which size."""

from resnet_jax.evaluation.views.crops import Centre, Corner, five_crops
from resnet_jax.evaluation.views.scales import Scale
from resnet_jax.evaluation.views.view import Placement, Resized, View

__all__ = ["Centre", "Corner", "Placement", "Resized", "Scale", "View", "five_crops"]
