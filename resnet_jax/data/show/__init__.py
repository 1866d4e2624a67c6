"""What a network sees of a data set, drawn: `python -m resnet_jax show`."""
