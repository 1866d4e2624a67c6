"""Training, from the first step or from the newest checkpoint, to the last step."""

import collections
import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import NoReturn, cast

import jax
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import parallel
from resnet_jax.checkpoints import (
    Checkpoints,
    Evaluation,
    Layout,
    Workdir,
    read_config,
    refuse_unshared,
)
from resnet_jax.data import Statistics, prefetch
from resnet_jax.errors import InputError
from resnet_jax.evaluation import Evaluator
from resnet_jax.training.interruption import Interrupted, Interruption
from resnet_jax.training.logging import Logger
from resnet_jax.training.profile import Profile
from resnet_jax.training.run import Run
from resnet_jax.training.state import TrainState, Window, pack
from resnet_jax.training.watch import Watch

# Steps that may be dispatched before the oldest of them is done. Enough to hide the host's work;
# more would only hold memory, and starves virtual devices, which share one pool of threads.
_STEPS_AHEAD = 2


class DivergedError(RuntimeError):
    """A number of the training is infinite or NaN.

    Attributes:
      step: The first step with such a number, counted from 1.
      keys: The examples of its batch.
    """

    exit_status = 1
    on_all_processes = True

    def __init__(self, message: str, step: int, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.step = step
        self.keys = keys


def train(
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    begin_anew: bool = False,
    lock_timeout: float = 60.0,
) -> TrainState:
    """Trains a network, or goes on from the newest checkpoint in `workdir`.

    Of several processes each raises its own errors, and has to end then; the others end when they
    miss it. A process that hangs for one of `config.timeouts` is ended, with its stacks on the
    terminal and status 75.

    Args:
      config: The run's config, see `resnet_jax.config.base_config`.
      workdir: The folder of the run's config, checkpoints, logs and report.
      begin_anew: Whether to begin at the first step if checkpoints were finished in the workdir and
        none good is left; otherwise this is refused.
      lock_timeout: Seconds to wait for another trainer in the workdir to end.

    Returns:
      The state after the last step.

    Raises:
      InputError: The config or the workdir cannot be used, and nothing was written, on any process;
        or the workdir is there, but not all processes see it; or the data cannot be read any
        more (the steps until then have been saved, if there is only one process).
      BusyError: Another trainer is still at work in the workdir.
      Interrupted: A signal ended the run; it has been saved.
      DivergedError: Loss, gradients, parameters or statistics became infinite or NaN; no such
        state was saved.
    """
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.compilation_cache)
        # By default one second, which leaves out the samplers of the first parameters.
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    primary = parallel.is_primary()
    layout = Layout(workdir)
    ledger = layout.bad_records(parallel.process_index())
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(Watch())
        with parallel.agree_on_input():
            stored = parallel.once(
                lambda: read_config(workdir) if layout.config_path.exists() else None
            )
            config = configs.choose_lowering(config, stored)
            run = Run.from_config(config, ledger=ledger)
            # The source of a fine-tuning is read before anything is written.
            beginning = run.begin() if stored is None else None
        with parallel.agree_on_input():  # nothing is written if another process refuses its input
            if primary:
                taken = Workdir(
                    workdir,
                    config.to_dict(),
                    may_change=configs.may_change(config),
                    defaults=configs.base_config().to_dict(),
                    lock_timeout=lock_timeout,
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
        refuse_unshared(layout.path)
        saved = checkpoints.restore("newest", run.checkpoint_template(), begin_anew=begin_anew)
        with parallel.agree_on_input():
            state, statistics = run.resume(saved) if saved else beginning or run.begin()
            # A run that was killed in an evaluation has saved the step before it.
            lacks_evaluation = bool(saved and not saved.evaluation and run.evaluates(saved.step))
            logger = Logger(
                layout if primary else None,
                title=f"{config.model.name} on {config.data.source}",
                start_step=int(state.step),
                lacks_evaluation=lacks_evaluation,
                total_steps=config.total_steps,
                batch_size=config.batch_size,
            )
            stack.enter_context(logger)
        interruption = stack.enter_context(Interruption(sync=parallel.preemption_sync()))
        skipped = cast(list[int], saved.metadata.get("skipped", []) if saved else [])
        loop = _Loop(
            run, statistics, layout.path, checkpoints, logger, interruption, watch, skipped
        )
        return loop.take_steps(run.replicas.place(state), lacks_evaluation)


@dataclasses.dataclass
class _Loop:
    run: Run
    statistics: Statistics
    workdir: epath.Path
    checkpoints: Checkpoints
    logger: Logger
    interruption: Interruption
    watch: Watch
    skipped: list[int]  # steps that were left out, because a number was not finite
    finite: dict[int, jax.Array] = dataclasses.field(default_factory=dict)  # by step, to be read

    def take_steps(self, state: TrainState, lacks_evaluation: bool) -> TrainState:
        config, run = self.run.config, self.run
        take_step = run.train_step(self.statistics)
        evaluator = run.evaluator(self.statistics)
        step = self._saved = int(state.step)
        self._introduce(state, lacks_evaluation)
        self.watch.limit(run.timeouts())
        batches = map(run.replicas.shard, run.batches(step))
        ahead = collections.deque()
        try:
            if lacks_evaluation:
                state = self._evaluate(step, state, evaluator)
            with (
                prefetch(batches, config.prefetch) as batches,
                Profile(config.profile, self.workdir / "profile") as profile,
            ):
                for batch in self.watch.each("input", batches):
                    profile.before(step + 1)
                    state, metrics = take_step(state, batch)
                    step += 1
                    if "finite" in metrics:
                        self.finite[step] = metrics["finite"]
                    ahead.append(metrics["loss"])
                    if len(ahead) > _STEPS_AHEAD:
                        ahead.popleft().block_until_ready()
                    self.logger.advance(step)
                    self.watch.stepped(step, again=step <= self.logger.lost_step)
                    self.checkpoints.check()
                    profile.after(step, state)

                    last = step == config.total_steps
                    if last or step % config.log_every == 0:
                        values, state = self._close_window(step, state, metrics["learning_rate"])
                        self.logger.train(step, values)
                    if run.evaluates(step) or step % config.checkpoint_every == 0:
                        self._save(step, state)
                    if run.evaluates(step):
                        state = self._evaluate(step, state, evaluator)
                    if not last:
                        self._heed_signal(step)
        except (InputError, OSError, Interrupted) as error:
            # The others of several processes have gone on, but for a signal, after a failed input.
            if isinstance(error, Interrupted) or parallel.is_alone():
                if step > self._saved:
                    self._save(step, state)
                self._finish_save()
            raise
        self._finish_save()  # here, where a signal does not end the process
        return state

    def _introduce(self, state: TrainState, lacks_evaluation: bool) -> None:
        config, run, start = self.run.config, self.run, int(state.step)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        self.logger.note(
            f"{config.model.name}, {parameters:,} parameters, on {len(run.train_images):,} images "
            f"of {config.data.source}; {run.replicas}; in {self.workdir}"
        )
        if start >= config.total_steps and not lacks_evaluation:
            self.logger.note(f"the run is complete at step {start}; nothing to do")
        elif start:
            self.logger.note(f"going on from step {start}")
            self.logger.note_hole(config.log_every)

    def _check_finite(self, state: TrainState) -> None:
        """Waits for the device, and raises `DivergedError` where a number is infinite or NaN.

        Steps that may be left out get a line instead.
        """
        finite, bad_step = jax.device_get((self.finite, state.window.bad_step))
        self.finite.clear()
        for step in (step for step, is_finite in finite.items() if not is_finite):
            if len(self.skipped) == self.run.config.skip_steps:
                self._diverge(step)
            self.skipped.append(step)
            keys = ", ".join(self.run.example_keys(step - 1))
            self.logger.note(
                f"step {step} is left out, number {len(self.skipped)} of "
                f"{self.run.config.skip_steps}: loss, gradients, parameters or statistics would "
                f"be infinite or NaN; its batch had the examples {keys}"
            )
        if bad_step:
            self._diverge(int(bad_step))

    def _diverge(self, step: int) -> NoReturn:
        self._finish_save()
        saved = self.checkpoints.steps()
        keys = self.run.example_keys(step - 1)
        raise DivergedError(
            f"training has diverged: since step {step} loss, gradients, parameters or statistics "
            "are infinite or NaN, and no such state was saved; "
            f"{f'the newest checkpoint is of step {saved[-1]}' if saved else 'none was saved'}; "
            f"the batch of step {step} had the examples {', '.join(keys)}",
            step,
            keys,
        )

    def _close_window(
        self, step: int, state: TrainState, learning_rate: jax.Array
    ) -> tuple[dict[str, float], TrainState]:
        """Returns the means over the steps since the last log, and the state with a new window."""
        self._check_finite(state)
        window, learning_rate = jax.device_get((state.window, learning_rate))
        steps = int(window.steps) or math.nan  # if all were left out
        values = {
            "loss": float(window.loss) / steps,
            "top1_error": 100 * float(window.top1_error) / steps,
            "learning_rate": float(learning_rate),
        }
        return values, state.replace(window=self.run.replicas.place(Window.empty()))

    def _evaluate(self, step: int, state: TrainState, evaluator: Evaluator) -> TrainState:
        """Evaluates a state that was saved; returns it with the learning rate that follows."""
        config = self.run.config

        def after_batch() -> None:
            self.watch.progress()
            self._heed_signal(step)

        with self.logger.pause("evaluating"), self.watch.phase("evaluation"):
            errors = evaluator(state.variables, after_batch)
            self.logger.evaluation(step, config.data.eval_split, errors)
        plateau = None
        if config.schedule.name == "plateau":
            before = jax.device_get(state.plateau)
            after = before.after(errors["top1_error"], config.schedule)
            if after.scale != before.scale:
                self.logger.note(f"the error plateaus: learning rate x {after.scale:g}")
            state = state.replace(plateau=self.run.replicas.place(after))
            plateau = after.as_json()
        self.logger.sync()
        self.checkpoints.mark(step, Evaluation(errors["top1_error"], plateau))
        self.logger.time(step, self.watch.shares())
        return state

    def _heed_signal(self, step: int) -> None:
        if signal := self.interruption.should_stop():
            raise Interrupted(step, signal, self.workdir)

    def _save(self, step: int, state: TrainState) -> None:
        run = self.run
        self._check_finite(state)
        with self.logger.pause("saving"), self.watch.phase("save"):
            self.logger.sync()
            run.bad_records.sync()
            self.checkpoints.save(
                step,
                pack(run.replicas.as_global(state), self.statistics),
                {**run.description(), **({"skipped": self.skipped} if self.skipped else {})},
                metric=None,
            )
            self._saved = step

    def _finish_save(self) -> None:
        with self.watch.phase("save"):
            self.checkpoints.wait()
