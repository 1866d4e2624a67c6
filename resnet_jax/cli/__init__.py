"""The programs: `python -m resnet_jax COMMAND`, or the script `resnet_jax`.

A command is one module of this package with a function `main(arguments)`. It parses its arguments,
does the work and raises what went wrong; `frame.run` turns that into one sentence and an exit
status.
"""

COMMANDS = {
    "train": "train a network, or go on with a run",
    "evaluate": "evaluate checkpoints or weights by one of the paper's protocols",
    "checkpoints": "list, verify or prune the checkpoints of a run",
    "prepare": "turn a data set into a few large files",
    "show": "draw the images as the network receives them",
    "doctor": "measure which part of a run limits its speed",
    "summary": "print the layers, parameters and multiply-adds of a network",
    "roofline": "print the least time of a network on a device, and what limits it",
    "scaling": "print how fast a pod trains, and what it needs of its network and hosts",
    "look": "draw what a network sees: filters, activations, patches, Grad-CAM, gradients",
    "reproduce": "reproduce a table or a figure of the paper from runs",
    "convert": "convert weights between the names of libraries",
    "export": "write a network as a StableHLO program",
}
"""Each command with its line of help."""
