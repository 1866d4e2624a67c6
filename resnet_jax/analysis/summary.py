"""The former name of `python -m resnet_jax summary`."""

from resnet_jax.errors import exit_moved

if __name__ == "__main__":
    exit_moved("summary")
