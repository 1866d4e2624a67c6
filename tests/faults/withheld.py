"""Parts of the state that are lost when a run goes on: for `Run.resume`, but for the last."""

import jax
import numpy as np

from resnet_jax.data import Statistics
from resnet_jax.training.schedules import Plateau
from resnet_jax.training.state import Window


def zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def no_momentum(resume, run, saved):
    state, statistics = resume(run, saved)
    return state.replace(opt_state=zeros(state.opt_state)), statistics


def no_batch_statistics(resume, run, saved):
    state, statistics = resume(run, saved)
    batch_stats = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full_like(leaf, "var" in jax.tree_util.keystr(path[-1:])),
        state.batch_stats,
    )
    return state.replace(batch_stats=batch_stats), statistics


def no_window(resume, run, saved):
    state, statistics = resume(run, saved)
    return state.replace(window=Window.empty()), statistics


def no_plateau(resume, run, saved):
    state, statistics = resume(run, saved)
    return state.replace(plateau=Plateau.start()), statistics


def no_mean(resume, run, saved):
    state, statistics = resume(run, saved)
    return state, Statistics(zeros(statistics.mean), statistics.std, statistics.color)


def a_step_too_far(resume, run, saved):
    state, statistics = resume(run, saved)
    return state.replace(step=state.step + 1), statistics


def first_step(resume, run, saved):
    state, statistics = resume(run, saved)
    return state.replace(step=np.zeros_like(state.step)), statistics


def another_key_of_dropout(make, *args, seed, **options):
    return make(*args, seed=seed + 1, **options)
