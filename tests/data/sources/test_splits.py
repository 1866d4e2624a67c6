import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.core import splits as tfds_splits

from resnet_jax import InputError
from resnet_jax.data import Digits, Example, load_source, select
from resnet_jax.data.sources.splits import Part, parse

LENGTHS = {"train": 1437, "test": 360, "test-2": 7}


class Numbers:
    """A source of which an example's label says which one it is."""

    def __init__(self, split, classes=("a", "b")):
        self.class_names = classes
        self._split = split

    def __len__(self):
        return LENGTHS[self._split]

    def __getitem__(self, index):
        assert 0 <= index < len(self)
        return Example(b"", index, f"{self._split}:{index}")


SPLITS = {name: lambda name=name: Numbers(name) for name in LENGTHS}


def ours(spec, lengths):
    return parse(spec, tuple(lengths), lengths.__getitem__, of="numbers")


def theirs(spec, lengths):
    infos = {n: tfds_splits.SplitInfo(n, [length], 0) for n, length in lengths.items()}
    absolute = tfds_splits.AbstractSplit.from_spec(spec).to_absolute(infos)
    return tuple(
        Part(
            part.splitname, part.from_ or 0, lengths[part.splitname] if part.to is None else part.to
        )
        for part in absolute
    )


@pytest.mark.parametrize(
    "spec",
    [
        "train",
        "test-2",
        "all",
        "train[:45]",
        "train[45:]",
        "train[-45:]",
        "train[:-45]",
        "train[10:1_000]",
        "train[0:1437]",
        "train[-1437:]",
        "test[10%:20%]",
        "test[-33.3%:]",
        "test[:12.5%]",
        "test-2[:50%]",
        "test-2[50%:]",
        "train[:90%] + test[-5:]",
        "train[:10]+train[10:20]+test",
    ],
)
def test_means_what_it_means_to_tfds(spec):
    assert ours(spec, LENGTHS) == theirs(spec, LENGTHS)


ends = st.one_of(
    st.just(""),
    st.integers(-120, 120).map(str),
    st.integers(-110, 110).map("{}%".format),
    st.floats(-101, 101).map("{:.2f}%".format),
    st.sampled_from(["1_0", "1__0", "-", "_", ".", "5.5", "1.2.3%", "3shard", "%"]),
)


@given(start=ends, stop=ends, length=st.integers(1, 250))
def test_every_slice_is_tfds_or_refused(start, stop, length):
    spec, lengths = f"s[{start}:{stop}]", {"s": length}
    try:
        (part,) = ours(spec, lengths)
    except InputError as error:
        refusal = str(error)
    else:
        assert (part,) == theirs(spec, lengths)
        return
    try:
        (part,) = theirs(spec, lengths)
    except ValueError:
        return
    mixed = bool(start) and bool(stop) and start.endswith("%") != stop.endswith("%")
    assert part.start >= part.stop or mixed or "shard" in spec, refusal


@given(data=st.data(), length=st.integers(1, 1000))
def test_slices_in_percent_partition(data, length):
    cuts = data.draw(st.lists(st.integers(1, 99), max_size=5, unique=True).map(sorted))
    seen = []
    for start, stop in itertools.pairwise([0, *cuts, 100]):
        try:
            (part,) = ours(f"s[{start}%:{stop}%]", {"s": length})
        except InputError:  # a slice of a small split may be empty
            continue
        seen.extend(range(part.start, part.stop))
    assert seen == list(range(length))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("trian", "there is no split of numbers 'trian'; did you mean train?"),
        ("train+x", "there is no split of numbers 'x'; known are test, test-2, train"),
        ("train[5:5]", "split 'train[5:5]' is empty: train has 1437 examples"),
        ("train[-1:1]", "split 'train[-1:1]' is empty: train has 1437 examples"),
        ("test-2[:1%]", "split 'test-2[:1%]' is empty: test-2 has 7 examples"),
        ("test[:361]", "split 'test[:361]' asks for more than the 360 examples of test"),
        ("test[:101%]", "split 'test[:101%]' asks for more than 100%"),
        ("test[:9]+test[8:]", "split 'test[:9]+test[8:]' has some examples of test twice"),
        ("all+train", "split 'all+train' has some examples of train twice"),
        ("all[:10]", "split 'all[:10]' cannot be read; only single splits have slices"),
        *(
            (
                spec,
                f"split {spec!r} cannot be read; write them as 'train', 'train[:1000]', "
                "'train[-10%:]' or 'train[:90%]+test'",
            )
            for spec in [
                "",
                "train[",
                "train[5]",
                "train[:]",
                "train[1:2:3]",
                "train[:2shard]",
                "train[10%:20]",
                "train[1.5:]",
                "train +",
            ]
        ),
    ],
)
def test_refusals(spec, message):
    with pytest.raises(InputError) as error:
        ours(spec, LENGTHS)
    assert str(error.value) == message


def test_selected_examples_are_those_of_the_parts():
    source = select("test[-2:]+train[:3]+test[:1]", SPLITS, of="numbers")
    keys = ["test:358", "test:359", "train:0", "train:1", "train:2", "test:0"]
    assert [source[i].key for i in range(len(source))] == keys
    assert source[-1].key == keys[-1]
    assert source.class_names == ("a", "b")
    with pytest.raises(IndexError):
        source[6]


def test_only_what_is_asked_for_is_opened():
    def fail():
        raise AssertionError("opened")

    source = select("train[:10]", {**SPLITS, "test": fail}, of="numbers")
    assert len(source) == 10
    whole = Numbers("train")
    assert select("train", {"train": lambda: whole}, of="numbers") is whole
    assert select("train[:100%]", {"train": lambda: whole}, of="numbers") is whole


def test_splits_of_different_classes_are_not_joined():
    splits = {**SPLITS, "test": lambda: Numbers("test", ("a", "c"))}
    with pytest.raises(InputError, match=r"^splits with different classes cannot be joined$"):
        select("all", splits, of="numbers")


def test_digits_have_slices():
    train, held_out = load_source("digits", "train[:1000]"), load_source("digits", "train[1000:]")
    whole = Digits("train")
    assert [e.key for e in (*map(train.__getitem__, range(1000)), held_out[0], held_out[-1])] == [
        e.key for e in (*map(whole.__getitem__, range(1000)), whole[1000], whole[1436])
    ]
    assert len(load_source("digits", "all")) == 1797
