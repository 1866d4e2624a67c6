"""Training, from the first step or wherever the run was left, to the last."""

import collections
import contextlib
import itertools
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import parallel
from resnet_jax.checkpoints import Checkpoints, Layout, Workdir
from resnet_jax.data import Statistics, prefetch
from resnet_jax.errors import InputError
from resnet_jax.evaluation import Description
from resnet_jax.training.endings import Endings
from resnet_jax.training.interruption import Interrupted, Interruption
from resnet_jax.training.journal import Journal
from resnet_jax.training.profile import Profile
from resnet_jax.training.run import Run
from resnet_jax.training.saved import pack, templates, unpack
from resnet_jax.training.state import TrainState, Window

# Steps that may be dispatched before the oldest of them is done. Enough to hide the host's work;
# more would only hold memory, and starves virtual devices, which share one pool of threads.
_STEPS_AHEAD = 2


class DivergedError(RuntimeError):
    """A number of the training is infinite or NaN.

    Attributes:
      step: The first step with such a number.
      keys: The examples of its batch.
    """

    def __init__(self, message: str, step: int, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.step = step
        self.keys = keys

    exit_status = 1


def train(config: ConfigDict, workdir: epath.PathLike, *, begin_anew: bool = False) -> TrainState:
    """Trains a network, or goes on where the run in `workdir` was left.

    Args:
      config: The run's config, see `resnet_jax.config.base_config`.
      workdir: Where the run keeps its config, checkpoints, logs and report.
      begin_anew: Whether to begin at the first step where checkpoints were finished in the workdir
        and none good is left; otherwise this is refused.

    Returns:
      The state after the last step.

    Raises:
      InputError: The config or the workdir cannot be used, and nothing was written; or the data
        cannot be read any more, and the run has been saved.
      ProcessError: Another process has failed; the run has been saved if it could be.
      Interrupted: A signal ended the run; it has been saved.
      DivergedError: Loss, gradients, parameters or statistics became infinite or NaN; no such
        state was saved.
    """
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.compilation_cache)
    primary = parallel.is_primary()
    layout = Layout(workdir)
    ledger = layout.bad_records(parallel.process_index())
    with contextlib.ExitStack() as stack:
        with parallel.together():
            run = Run.from_config(config, ledger=ledger)
            # What a new run starts from is looked for before anything is written.
            beginning = None if layout.config_path.exists() else run.begin()
            if primary:
                taken = Workdir(
                    workdir,
                    config.to_dict(),
                    may_change=configs.may_change(config),
                    defaults=configs.base_config().to_dict(),
                )
                stack.enter_context(taken)
            stack.callback(run.bad_records.sync)
            checkpoints = stack.enter_context(
                Checkpoints(
                    layout.checkpoints,
                    keep_newest=config.keep_newest,
                    keep_best=config.keep_best,
                )
            )
        interruption = stack.enter_context(Interruption(sync=parallel.preemption_sync()))
        state, statistics = _start(run, checkpoints, beginning, begin_anew)
        endings = stack.enter_context(
            Endings(parallel.board(), steps_ahead=_STEPS_AHEAD, last=config.total_steps)
        )
        with parallel.together():
            journal = stack.enter_context(
                Journal(
                    layout if primary else None,
                    title=f"{config.model.name} on {config.data.source}",
                    start_step=int(state.step),
                    total_steps=config.total_steps,
                    batch_size=config.batch_size,
                )
            )
        loop = _Loop(run, layout.path, checkpoints, journal, interruption, endings, statistics)
        return loop.run(state)


def _start(
    run: Run,
    checkpoints: Checkpoints,
    beginning: tuple[TrainState, Statistics] | None,
    begin_anew: bool,
) -> tuple[TrainState, Statistics]:
    """Returns where the run was left, or its beginning."""
    saved = checkpoints.restore("newest", templates(run), begin_anew=begin_anew)
    if saved is None:
        with parallel.together():
            state, statistics = beginning or run.begin()
        return run.replicas.place(state), statistics
    before, now = saved.metadata.get("examples"), len(run.train_images)
    if before not in (None, now):  # not in those of older runs
        raise InputError(
            f"the run has learned from {before} examples of {run.config.data.train_split} until "
            f"now, and there are {now}; their order would be another one"
        )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.items["variables"])):
        raise InputError(
            f"checkpoint {saved.step} has parameters or statistics that are infinite or NaN, and "
            "nothing can be learned from there; remove it to go on from the one before"
        )
    state, statistics = unpack(saved.items, run)
    return run.replicas.place(state), statistics


class _Loop:
    def __init__(
        self,
        run: Run,
        workdir: epath.Path,
        checkpoints: Checkpoints,
        journal: Journal,
        interruption: Interruption,
        endings: Endings,
        statistics: Statistics,
    ) -> None:
        self._run = run
        self._config = run.config
        self._workdir = workdir
        self._checkpoints = checkpoints
        self._journal = journal
        self._interruption = interruption
        self._endings = endings
        self._statistics = statistics
        self._flags: list[jax.Array] = []  # of the steps since the last check
        self._train_step = run.train_step(statistics)
        self._evaluator = run.evaluator(statistics)

    def run(self, state: TrainState) -> TrainState:
        config = self._config
        step = self._saved = start = int(state.step)
        self._introduce(start)
        batches = self._endings.watch(self._run.batches(start), start)
        sharded = map(self._run.replicas.shard, batches)
        ahead = collections.deque()
        ended: Exception | None = None
        with (
            prefetch(sharded, config.prefetch) as batches,
            Profile(config.profile, self._workdir / "profile") as profile,
        ):
            first = list(itertools.islice(batches, 1))
            parallel.agree(start)  # all can go on to what was announced before they had theirs
            for batch in itertools.chain(first, batches):
                if (ended := self._endings.after(step)) is not None:
                    break
                step += 1
                profile.before(step)
                state, metrics = self._train_step(state, batch)
                ahead.append(metrics["loss"])
                self._flags.append(metrics["finite"])
                if len(ahead) > _STEPS_AHEAD:
                    ahead.popleft().block_until_ready()
                self._journal.advance(step)
                profile.after(step, state)

                last = step == config.total_steps
                if last or step % config.eval_every == 0:
                    self._check_finite(step, state)
                if last or step % config.log_every == 0:
                    state = self._log(step, state, metrics["learning_rate"])
                errors = None
                if last or step % config.eval_every == 0:
                    try:
                        state, errors = self._evaluate(step, state)
                    except Exception as error:  # such as an image that cannot be read
                        ended = error
                        break
                if errors is not None or step % config.checkpoint_every == 0:
                    self._save(step, state, errors)
                if self._interruption.should_stop(step) and not last:
                    signal = self._interruption.requested
                    assert signal is not None
                    ended = Interrupted(step, signal, self._workdir)
                    break
        ended = ended or self._endings.after(step)
        if ended is not None and step > self._saved:  # what was learned is not lost
            self._save(step, state, None)
        with parallel.together():
            self._checkpoints.wait()
        if ended is not None:
            raise ended
        return state

    def _introduce(self, start: int) -> None:
        config, run = self._config, self._run
        parameters = sum(
            leaf.size for leaf in jax.tree.leaves(jax.eval_shape(run.init_state).params)
        )
        self._journal.note(
            f"{config.model.name}, {parameters:,} parameters, on {len(run.train_images):,} images "
            f"of {config.data.source}; {run.replicas}; in {self._workdir}"
        )
        if start >= config.total_steps:
            self._journal.note(f"the run is complete at step {start}; nothing to do")
        elif start:
            self._journal.note(f"going on from step {start}")

    def _log(self, step: int, state: TrainState, learning_rate: jax.Array) -> TrainState:
        self._check_finite(step, state)
        window, learning_rate = jax.device_get((state.window, learning_rate))
        values = {
            "loss": float(window.loss) / int(window.steps),
            "top1_error": 100 * float(window.top1_error) / int(window.steps),
            "learning_rate": float(learning_rate),
        }
        try:
            self._journal.train(step, values)
        except OSError as error:
            self._endings.soon(step, error)
        return state.replace(window=self._run.replicas.place(Window.empty()))

    def _evaluate(self, step: int, state: TrainState) -> tuple[TrainState, dict[str, float]]:
        with self._journal.pause("evaluating"):
            errors = self._evaluator(state.variables)
            with parallel.together():
                self._journal.evaluation(step, self._config.data.eval_split, errors)
        if self._config.schedule.name == "plateau":
            before = jax.device_get(state.plateau)
            after = before.after(errors["top1_error"], self._config.schedule)
            if after.scale != before.scale:
                self._journal.note(f"the error plateaus: learning rate x {after.scale:g}")
            state = state.replace(plateau=self._run.replicas.place(after))
        return state, errors

    def _save(self, step: int, state: TrainState, errors: dict[str, float] | None) -> None:
        with self._journal.pause("saving"):
            self._check_finite(step, state)
            with parallel.together():
                self._journal.sync()
                self._checkpoints.wait()
            try:
                self._run.bad_records.sync()
            except OSError as error:  # what it lists is found again; what was learned is not
                self._endings.soon(step, error)
            self._checkpoints.save(
                step,
                pack(self._run.replicas.as_global(state), self._statistics),
                Description(
                    config=self._config.to_dict(),
                    class_names=self._run.train_images.class_names,
                    examples=len(self._run.train_images),
                    image_shape=self._run.train_images.image_shape,
                ),
                metric=None if errors is None else errors["top1_error"],
            )
            self._saved = step

    def _check_finite(self, step: int, state: TrainState) -> None:
        finite, flags = jax.device_get((state.window.finite, self._flags))
        self._flags.clear()
        if finite:
            return
        first = step - len(flags) + 1 + flags.index(False)
        self._checkpoints.wait()
        steps = self._checkpoints.steps()
        newest = f"the newest checkpoint is of step {steps[-1]}" if steps else "none was saved"
        keys = self._run.example_keys(first - 1)
        raise DivergedError(
            f"training has diverged: since step {first} loss, gradients, parameters or statistics "
            f"are infinite or NaN, and no such state was saved; in {self._workdir} {newest}; the "
            f"batch of step {first} had the examples {', '.join(keys)}",
            first,
            keys,
        )
