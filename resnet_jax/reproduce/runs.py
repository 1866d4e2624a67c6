"""The runs of an experiment: made where they are missing, found, and measured."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax.analysis import layer_responses
from resnet_jax.checkpoints import Checkpoints, Json, Layout, Workdir, manifest, read_config
from resnet_jax.data import eval_batches, preprocess
from resnet_jax.errors import InputError
from resnet_jax.evaluation import Network, Protocol, evaluate_ensemble, restore
from resnet_jax.files import fingerprint, resolve_path, write_atomically
from resnet_jax.training import train
from resnet_jax.training.logging import read_metrics

_HELD_OUT = ("train[:45000]", "train[45000:]")  # section 4.2
_EVALUATIONS = 20  # of a shortened run
_RESPONSES = 1000  # images

_OF_A_RUN = (
    *("seed", "total_steps", "schedule.boundaries", "schedule.warmup_steps"),
    *("data.source", "data.name", "data.in_memory", "data.statistics_examples", "eval_every"),
)
"""Keys in which runs of one recipe may differ, besides those that may change in a run."""


class Run(NamedTuple):
    """A run that has ended.

    Attributes:
      workdir: Its workdir.
      config: Its config; the data are those of the plan.
    """

    workdir: epath.Path
    config: ConfigDict


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs to make or to take.

    Attributes:
      out: The folder of the report, with the runs in `runs/` and measurements in `measured/`.
      data: A folder of images, or tfds' `data_dir`; by default that of the configs.
      seeds: How many runs of each config, with the seeds from 0.
      fraction: The length of the runs, as a share of the config's; the schedule is scaled.
      changes: Other values of the configs, by nested keys.
      held_out: Whether 5,000 training images of CIFAR-10 take the place of the test images.
      runs: A folder with workdirs of earlier runs, of any length and seed; nothing is run then.
    """

    out: epath.Path
    data: str | None = None
    seeds: int = 1
    fraction: float = 1.0
    changes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    held_out: bool = False
    runs: epath.Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise InputError(f"the fraction is {self.fraction}; it must be above 0 and at most 1")
        if self.seeds < 1:
            raise InputError(f"seeds are {self.seeds}; there must be at least 1")
        if self.runs is not None and not self.runs.is_dir():
            raise InputError(f"{self.runs} is not a folder; --runs takes one with workdirs of runs")
        if "seed" in self.changes:
            raise InputError("the seeds of the runs are counted from 0; give --seeds, not a seed")

    def config(self, spec: str, seed: int = 0) -> ConfigDict:
        """Returns the config of a run; `spec` is `FILE:NAME` of `configs/`."""
        config = configs.load_config(spec)
        if self.fraction != 1:
            shorten(config, self.fraction)
        config.seed = seed
        if self.held_out:
            if config.data.name != "cifar10":
                raise InputError("5,000 training images are held out of CIFAR-10 only")
            config.data.train_split, config.data.eval_split = _HELD_OUT
        configs.update(config, self.changes)
        configs.check(config)
        self.place_data(config)
        return config

    def place_data(self, config: ConfigDict) -> None:
        """Changes where a config's data are, unless they are part of the package."""
        if self.data is None or config.data.source == "digits":
            return
        folder = resolve_path(self.data)
        split = config.data.train_split.partition("[")[0]
        config.data.source = "folder" if (folder / split).is_dir() else "tfds"
        config.data.path = self.data

    def make(self, specs: Mapping[str, int]) -> dict[str, list[Run]]:
        """Returns the runs by config, of each the number that is given, and trains what is missing.

        With `runs` nothing is trained; all runs there by a config's recipe are returned.

        Raises:
          InputError: What `training.train` refuses; a workdir has a longer run or one of another
            config; or `runs` has no run of any of the configs, or runs that have no mean.
          Interrupted: A signal ended a run; the same call goes on.
        """
        if self.runs is not None:
            return self._find(specs)
        jobs = [(spec, seed) for spec, count in specs.items() for seed in range(count)]
        made = {spec: [] for spec in specs}
        for number, (spec, seed) in enumerate(jobs, start=1):
            config = self.config(spec, seed)
            if jax.config.jax_compilation_cache_dir is None:  # pyrefly: ignore
                # Runs that differ in their seeds share their programs.
                config.compilation_cache = str(self.out / "compiled")
            file, _, name = spec.partition(".py:")
            workdir = self.out / "runs" / f"{file}-{name}-{seed}"
            steps = _ended(workdir) or 0
            if steps > config.total_steps:
                raise InputError(
                    f"{workdir} has a run of {steps} steps, and one of {config.total_steps} is "
                    "wanted; give another --out"
                )
            if steps < config.total_steps:
                print(f"run {number} of {len(jobs)}: {spec}, seed {seed}", flush=True)
                train(config, workdir)
            else:
                _check_config(config, workdir)
            made[spec].append(Run(workdir, config))
        return made

    def _find(self, specs: Mapping[str, int]) -> dict[str, list[Run]]:
        assert self.runs is not None
        wanted = {spec: self.config(spec) for spec in specs}
        found: dict[str, list[Run]] = {spec: [] for spec in specs}
        for workdir in sorted(self.runs.iterdir()):
            if not Layout(workdir).config_path.exists():
                continue
            try:
                config = configs.complete(read_config(workdir))
            except InputError as error:
                raise InputError(f"{workdir.name} is not one of the runs ({error})") from error
            specs_of_run = [spec for spec in wanted if _same_recipe(config, wanted[spec])]
            if specs_of_run and _ended(workdir) == config.total_steps:
                self.place_data(config)
                for spec in specs_of_run:
                    found[spec].append(Run(workdir, config))
        if not any(found.values()):
            raise InputError(f"{self.runs} has no run that has ended of {', '.join(specs)}")
        for spec, runs in found.items():
            seeds, lengths = ({run.config[k] for run in runs} for k in ("seed", "total_steps"))
            if len(seeds) < len(runs) or len(lengths) > 1:
                raise InputError(
                    f"the runs of {spec} in {self.runs} have no common mean, for they differ in "
                    "length or two have one seed: "
                    + ", ".join(run.workdir.name for run in runs)
                    + "; leave those that belong together"
                )
        return {spec: sorted(runs, key=lambda run: run.config.seed) for spec, runs in found.items()}


def shorten(config: ConfigDict, fraction: float) -> None:
    """Scales the length of a run and its schedule in place, at least one step each.

    A schedule that looks at evaluations has them as many times more often; others have 20.
    """

    def scaled(steps: int) -> int:
        return max(1, round(fraction * steps))

    config.total_steps = scaled(config.total_steps)
    config.schedule.boundaries = tuple(map(scaled, config.schedule.boundaries))
    if config.schedule.warmup_steps:
        config.schedule.warmup_steps = scaled(config.schedule.warmup_steps)
    plateau = config.schedule.name == "plateau"
    often = fraction * config.eval_every if plateau else config.total_steps / _EVALUATIONS
    config.eval_every = max(1, round(often))
    config.checkpoint_every = max(config.eval_every, round(fraction * config.checkpoint_every))
    config.log_every = min(config.log_every, max(1, config.total_steps // 100))


def measure_errors(
    runs: list[Run], plan: Plan, *, protocol: Protocol, split: str | None = None
) -> dict[str, float]:
    """Returns the metrics of the mean of the networks' probabilities, measured once for a plan."""
    first = runs[0].config
    key = {
        "protocol": protocol.label,
        "split": split or first.data.eval_split,
        "data": [first.data.source, first.data.name, first.data.path],
    }

    def measure() -> dict[str, float]:
        networks = [_network(run) for run in runs]
        return evaluate_ensemble(networks, protocol=protocol, split=split, quiet=False).metrics

    return _once(runs, plan, key, measure)


def measure_responses(run: Run, plan: Plan) -> dict[str, float]:
    """Returns the deviations of the responses to test images by layer, measured once for a plan."""

    def measure() -> dict[str, float]:
        network = _network(run)
        images = configs.load_images(run.config, run.config.data.eval_split)
        statistics = network.statistics

        def prepared() -> Iterator[jax.Array]:
            batches = eval_batches(images, batch_size=500, rows=slice(None))
            for _, batch in zip(range(-(-_RESPONSES // 500)), batches, strict=False):
                real = {"image": jnp.asarray(batch["image"][batch["mask"] > 0])}
                yield preprocess(real, statistics, padding=0)

        return layer_responses(network.model, network.variables, prepared())

    key = {"responses": run.config.data.eval_split, "data": [run.config.data.path]}
    return _once([run], plan, key, measure)


def curves(run: Run) -> dict[str, list[list[float]]]:
    """Returns the steps and the errors of `train` and `test` from the log of a run.

    Raises:
      InputError: The log is damaged, or ends before the run.
    """
    path, total = Layout(run.workdir).metrics, run.config.total_steps
    found: dict[str, list[list[float]]] = {"train": [[], []], "test": [[], []]}
    for row in read_metrics(path) if path.exists() else ():
        if row["split"] in ("train", run.config.data.eval_split):
            error = row.get("top1_error")
            if not isinstance(error, int | float) or not 0 <= error <= 100:
                raise InputError(f"{path} has a top1_error of {error!r} at step {row['step']}")
            split = "train" if row["split"] == "train" else "test"
            found[split][0].append(float(row["step"]))
            found[split][1].append(round(error, 4))
    if any(total not in steps for steps, _ in found.values()):
        raise InputError(
            f"{path} lacks errors of step {total}, the last of the run; restore the file, or "
            "remove the workdir to make the run again"
        )
    return found


def last_errors(found: dict[str, list[list[float]]]) -> dict[str, float]:
    """Returns the errors at the end of `curves`: `top1_error` and `running_error`."""
    steps, errors = map(np.array, found["train"])
    last = errors[steps > 0.95 * steps[-1]]
    return {"top1_error": found["test"][1][-1], "running_error": float(last.mean())}


def _network(run: Run) -> Network:
    return restore(run.workdir)._replace(config=run.config)


def _ended(workdir: epath.Path) -> int | None:
    """Returns the step of the newest checkpoint."""
    folder = Layout(workdir).checkpoints
    if not folder.exists():
        return None
    with Checkpoints(folder, writable=False) as checkpoints:
        return max(checkpoints.steps(), default=None)


def _check_config(config: ConfigDict, workdir: epath.Path) -> None:
    """Refuses a workdir whose run has another config or goes on in another process."""
    config = configs.choose_lowering(config, read_config(workdir))
    defaults = configs.base_config().to_dict()
    Workdir(
        workdir, config.to_dict(), may_change=configs.may_change(config), defaults=defaults
    ).close()


def _same_recipe(config: ConfigDict, wanted: ConfigDict) -> bool:
    """Whether runs differ in seed and length alone, with their schedules in proportion."""
    if _recipe(config) != _recipe(wanted):
        return False
    share = config.total_steps / wanted.total_steps
    there, here = _changes_of_rate(config), _changes_of_rate(wanted)
    return len(there) == len(here) and all(  # but for rounding
        abs(step - share * whole) <= 1 for step, whole in zip(there, here, strict=True)
    )


def _changes_of_rate(config: ConfigDict) -> tuple[int, ...]:
    """Returns the steps of a schedule; of a plateau, the interval at which it is looked for."""
    return (config.eval_every,) if config.schedule.name == "plateau" else config.schedule.boundaries


def _recipe(config: ConfigDict) -> dict[str, Json]:
    """Returns the values that runs of one recipe share."""
    values = json.loads(json.dumps(config.to_dict()))
    images = config.data.source in ("folder", "tfds")  # a folder may be a copy of tfds' data
    values["images"] = config.data.name if images else config.data.source
    for key in (*_OF_A_RUN, *configs.may_change(config)):
        *path, last = key.split(".")
        inner = values
        for part in path:
            inner = inner[part]
        inner.pop(last, None)
    return values


def _once(
    runs: list[Run], plan: Plan, key: dict[str, Json], measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Returns a measurement, from the file where an earlier call has left it if that is the same.

    A measurement belongs to the last checkpoint of each run, whose manifest tells it from others.
    """
    manifests = [
        Layout(run.workdir).checkpoints / str(run.config.total_steps) / manifest.FILENAME
        for run in runs
    ]
    key = {**key, "checkpoints": [fingerprint(path)["sha256"] for path in manifests]}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = plan.out / "measured" / f"{name}.json"
    with contextlib.suppress(FileNotFoundError, ValueError, LookupError):  # or it is damaged
        return json.loads(path.read_text())["values"]
    values = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"workdirs": [str(run.workdir) for run in runs], **key, "values": values})
    write_atomically(path, text.encode())
    return values
