"""The end of a preparation: what describes the files is written, all is verified, and found."""

import dataclasses
import json
import tempfile
from collections.abc import Mapping

from etils import epath

from resnet_jax.data.prepare.bad import BAD_FILE, write_bad
from resnet_jax.data.prepare.info import LAST, write_info
from resnet_jax.data.prepare.plan import Plan
from resnet_jax.data.prepare.progress import Done
from resnet_jax.data.prepare.shards import fingerprint
from resnet_jax.data.prepare.verify import FORMAT, MANIFEST, check_files
from resnet_jax.files import write_atomically


def finish(folder: epath.Path, plan: Plan, done: Mapping[str, Done]) -> None:
    """Makes a data set of files that are in place.

    Args:
      folder: Where they are.
      plan: What they are.
      done: Each of them.

    Raises:
      InputError: A file is not what was written.
    """
    shards = plan.shards()
    write_bad(folder, (bad for shard in shards for bad in done[shard.file].bad))
    prints = {
        shard.file: {"bytes": done[shard.file].size, "sha256": done[shard.file].sha256}
        for shard in shards
    }
    examples = dict.fromkeys(plan.counts, 0)
    for shard in shards:
        examples[shard.split] += done[shard.file].examples
    with tempfile.TemporaryDirectory() as scratch:
        info = epath.Path(scratch)
        write_info(plan, done, info)
        described = {path.name: path.read_bytes() for path in sorted(info.iterdir())}
        written = [info / name for name in described]
        if (folder / BAD_FILE).exists():
            written.append(folder / BAD_FILE)
        for path in written:
            size, sha256 = fingerprint(path)
            prints[path.name] = {"bytes": size, "sha256": sha256}
    manifest = {
        "format": FORMAT,
        "plan": dataclasses.asdict(plan),
        "examples": examples,
        "files": prints,
    }
    last = described.pop(LAST)
    for name, content in described.items():
        write_atomically(folder / name, content)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    check_files(folder, {name: each for name, each in prints.items() if name != LAST})
    write_atomically(folder / LAST, last)
