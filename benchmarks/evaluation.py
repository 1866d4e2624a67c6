"""`evaluate.py` on a folder of JPEGs, beside torchvision: `python benchmarks/evaluation.py FOLDER`.

    python benchmarks/evaluation.py FOLDER --split val --images 1000 --out evaluation.json

The folder is `<split>/<class>/*.jpg`. The network is ResNet-50 (v1.5, float32) with random weights
of torchvision, whose batch statistics are those of some of the images. Both programs read the same
file of weights, and write the five best classes of each image:
- ours: the whole command `evaluate.py`;
- torch: `DataLoader` with 2 processes, torchvision's transforms, the network channels last.
Each is run on one batch alone and on all images, each time in a new process; the difference is the
cost of an image, the rest that of the start. Printed are the medians over the turns; processor time
is summed over all threads and processes. The limit is the network alone, as `step.py` times it.
Last come the share of images that both give the same class, and the largest difference between the
probabilities of their best classes.
"""

import argparse
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import step
import turns
from turns import Result

ROOT = pathlib.Path(__file__).resolve().parents[1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="pixels of a crop")
    parser.add_argument("--protocol", choices=("single_crop", "ten_crop"), default="single_crop")
    parser.add_argument("--peers", default="ours,torch", help="separated by commas")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", help="file for the results, as JSON")
    parser.add_argument("--scratch", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        evaluate_by_torch(arguments, arguments.one)
        return
    with tempfile.TemporaryDirectory() as scratch:
        arguments.scratch = pathlib.Path(scratch)
        make_weights(arguments)
        jobs = {
            f"{peer}, {count} images": functools.partial(evaluate, peer, count, arguments)
            for peer in arguments.peers.split(",")
            for count in (arguments.batch, arguments.images)
        }
        results = turns.by_turns(jobs, arguments.turns, describe)
        found = {peer: cost(peer, results, arguments) for peer in arguments.peers.split(",")}
        options = ["--task=infer", "--dtype=float32", "--seconds=5"]
        options += [f"--batch={arguments.batch}", f"--size={arguments.size}"]
        found["network alone"] = step.in_a_process("ours", options)
        print(comparison(found, arguments))
        if len(found) == 3:
            found["agreement"] = agreement(arguments.scratch)
            print(found["agreement"])
        turns.write(arguments.out, found)


def make_weights(arguments: argparse.Namespace) -> None:
    """Writes random weights and a list of the images, in the order in which ours reads them."""
    import torch
    import torchvision

    from resnet_jax.data import FolderSplit

    torch.manual_seed(0)
    images = FolderSplit(arguments.folder, arguments.split)
    count = min(arguments.images, len(images))
    keys = [images[index].key for index in range(count)]
    (arguments.scratch / "keys.json").write_text(json.dumps(keys))
    arguments.images = count
    network = torchvision.models.resnet50(num_classes=len(images.class_names))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.inference_mode():
        for batch in loader(arguments, keys[:64], crops=1):
            network(batch)
    torch.save(network.state_dict(), arguments.scratch / "weights.pth")


def loader(arguments: argparse.Namespace, keys: list[str], *, crops: int, workers: int = 0):
    """Returns torch's loader of the images, normalised; of ten crops, an axis more."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    resize = transforms.Resize(resized(arguments))
    to_tensor = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    one = transforms.Compose([resize, transforms.CenterCrop(arguments.size), *to_tensor])
    each = transforms.Compose(to_tensor)
    ten = transforms.Compose([resize, transforms.TenCrop(arguments.size)])

    class Images(Dataset):
        def __len__(self):
            return len(keys)

        def __getitem__(self, index):
            with Image.open(arguments.folder / keys[index]) as file:
                image = file.convert("RGB")
            return one(image) if crops == 1 else torch.stack(list(map(each, ten(image))))

    batch = max(1, arguments.batch // crops)
    return DataLoader(Images(), batch, num_workers=workers)


def resized(arguments: argparse.Namespace) -> int:
    """Returns the shorter side of an image before the crop."""
    return round(arguments.size * 256 / 224)


def evaluate_by_torch(arguments: argparse.Namespace, count: int) -> None:
    """Writes the predictions of the first images by torch."""
    import torch
    import torchvision

    keys = json.loads((arguments.scratch / "keys.json").read_text())[:count]
    state = torch.load(arguments.scratch / "weights.pth", weights_only=True)
    network = torchvision.models.resnet50(num_classes=len(state["fc.bias"]))
    network.load_state_dict(state)
    network = network.eval().to(memory_format=torch.channels_last)  # pyrefly: ignore
    crops = 1 if arguments.protocol == "single_crop" else 10
    names = sorted({path.name for path in (arguments.folder / arguments.split).iterdir()})
    lines = []
    with torch.inference_mode():
        for batch in loader(arguments, keys, crops=crops, workers=2):
            flat = batch.reshape(-1, *batch.shape[-3:]).to(memory_format=torch.channels_last)
            scores = network(flat).softmax(-1).reshape(len(batch), crops, -1).mean(1)
            best = scores.topk(5)
            for probabilities, classes in zip(best[0].tolist(), best[1].tolist(), strict=True):
                top5 = [names[number] for number in classes]
                lines.append({"top5": top5, "probabilities": probabilities})
    predictions = arguments.scratch / "torch.jsonl"
    predictions.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def evaluate(peer: str, count: int, arguments: argparse.Namespace) -> Result:
    """Runs a peer's program on the first images; returns its seconds, or why it failed."""
    scratch, split = arguments.scratch, f"{arguments.split}[:{count}]"
    if peer == "ours":
        command = [
            *(str(ROOT / "evaluate.py"), f"--weights={scratch / 'weights.pth'}"),
            *(f"--config={ROOT / 'configs' / 'imagenet.py'}", "--config.data.source=folder"),
            *(f"--config.data.path={arguments.folder}", f"--split={split}"),
            *(f"--batch_size={arguments.batch}", f"--protocol={arguments.protocol}"),
            *(f"--crop={arguments.size}", f"--resize={resized(arguments)}"),
            *("--interpolation=bilinear", f"--predictions={scratch / 'ours.jsonl'}"),
        ]
    else:
        command = [__file__, *sys.argv[1:], f"--scratch={scratch}", f"--one={count}"]
    try:
        wall, processor, _ = turns.run([sys.executable, *command])
    except subprocess.CalledProcessError as error:
        return {"failed": (error.stderr.strip() or "no message").splitlines()[-1]}
    return {"seconds": wall, "processor_seconds": processor}


def cost(peer: str, results: dict[str, Result], arguments: argparse.Namespace) -> Result:
    """Returns the cost of the start and of an image."""
    few, many = (results[f"{peer}, {n} images"] for n in (arguments.batch, arguments.images))
    if "failed" in few or "failed" in many:
        return {"failed": few.get("failed") or many.get("failed")}
    more = arguments.images - arguments.batch
    processor = (many["processor_seconds"] - few["processor_seconds"]) / more
    return {
        "one_batch": few,
        "all": many,
        "images_per_second": more / (many["seconds"] - few["seconds"]),
        "processor_milliseconds": 1e3 * processor,
        "start_processor_seconds": few["processor_seconds"] - arguments.batch * processor,
    }


def agreement(scratch: pathlib.Path) -> Result:
    """Compares the predictions of both."""
    ours, torch = (
        [json.loads(line) for line in (scratch / f"{peer}.jsonl").read_text().splitlines()]
        for peer in ("ours", "torch")
    )
    pairs = list(zip(ours, torch, strict=True))
    return {
        "same_class": statistics.mean(a["top5"][0] == b["top5"][0] for a, b in pairs),
        "classes": len({line["top5"][0] for line in ours}),
        "difference": max(abs(a["probabilities"][0] - b["probabilities"][0]) for a, b in pairs),
    }


def describe(name: str, result: Result) -> str:
    """Returns a line about a run."""
    if "failed" in result:
        return f"{name}: {result['failed']}"
    return f"{name}: {result['seconds']:.2f} s, {result['processor_seconds']:.2f} processor s"


def comparison(found: dict[str, Result], arguments: argparse.Namespace) -> str:
    """Returns the table of the costs, and each peer's over that of the first."""
    rows = [["", "images/s", "processor ms/image", "start, processor s", "ratio"]]
    ours = next(iter(found.values())).get("processor_milliseconds", float("nan"))
    for name, result in found.items():
        if "failed" in result:
            rows.append([name, "-", "-", "-", result["failed"][:40]])
            continue
        processor = result.get("processor_milliseconds")
        if processor is None:  # of the network alone
            processor = 1e3 * result["processor_seconds"] / arguments.batch
        start = result.get("start_processor_seconds", float("nan"))
        rows.append(
            [
                name,
                f"{result['images_per_second']:.1f}",
                f"{processor:.1f}",
                f"{start:.1f}",
                f"{processor / ours:.2f}",
            ]
        )
    return turns.table(rows)


if __name__ == "__main__":
    main()
