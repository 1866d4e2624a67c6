"""The program and its tables."""

import subprocess
import sys

import pytest

from resnet_jax import InputError
from resnet_jax.cli.summary import main

NUMBERS = ("parameters", "multiply-adds", "bytes")


def printed(capsys, *arguments):
    main(arguments)
    return [
        [line.split("  ") for line in table.splitlines()]
        for table in capsys.readouterr().out.split("\n\n")
    ]


def rows(table):
    return [[cell.strip() for cell in line if cell.strip()] for line in table]


def test_reads_as_table_1(capsys):
    layers, stages, totals = printed(capsys, "resnet50")
    assert rows(stages) == [
        ["stage", "output", "layers", *NUMBERS],
        ["stem/conv", "112x112", "7x7, 64, stride 2", "9,536", "118,013,952", "3,211,264"],
        ["stem/max_pool", "56x56", "3x3 max pool, stride 2", "802,816"],
        [
            "stage1",
            "56x56",
            "[1x1, 64; 3x3, 64; 1x1, 256] x3",
            "215,808",
            "667,942,912",
            "17,661,952",
        ],
        [
            "stage2",
            "28x28",
            "[1x1, 128; 3x3, 128; 1x1, 512] x4",
            "1,219,584",
            "950,534,144",
            "11,239,424",
        ],
        [
            "stage3",
            "14x14",
            "[1x1, 256; 3x3, 256; 1x1, 1024] x6",
            "7,098,368",
            "1,387,266,048",
            "8,028,160",
        ],
        [
            "stage4",
            "7x7",
            "[1x1, 512; 3x3, 512; 1x1, 2048] x3",
            "14,964,736",
            "732,168,192",
            "2,207,744",
        ],
        ["avg_pool", "1x1", "7x7 mean pool", "8,192"],
        ["head", "1x1", "1000-d fc", "2,049,000", "2,048,000", "4,000"],
    ]
    assert len(layers) == 2 + 109
    assert rows(layers)[:5] == [
        ["layer", "output", "filter", "stride", "padding", *NUMBERS, "receptive field"],
        ["image", "224x224x3", "602,112"],
        ["stem/conv", "112x112x64", "7x7x3", "2", "3", "9,408", "118,013,952", "3,211,264", "7x7"],
        ["stem/bn", "112x112x64", "128", "7x7"],
        ["stem/max_pool", "56x56x64", "3x3", "2", "0,1", "802,816", "11x11"],
    ]
    assert ["  ".join(line) for line in totals] == [
        "25,557,032 parameters",
        "3,857,973,248 multiply-adds an image",
        "10,941,416 activations, those of the image included: 43.8 MB at 4 bytes each",
    ]


def test_other_images_and_options(capsys):
    options = ("--option", "output_stride=8", "--option", "shortcut=A", "--option", "num_classes=7")
    _, stages, totals = printed(capsys, "resnet18", "--image_size", "64", "--batch", "2", *options)
    stage3, stage4, _, head = rows(stages)[-4:]
    assert stage3[1:3] == [
        "8x8",
        "[3x3, 256; 3x3, 256, dilation 2] x1; [3x3, 256, dilation 2; 3x3, 256, dilation 2] x1",
    ]
    assert stage4[1] == "8x8"
    assert head[2] == "7-d fc"
    assert "of the 2 images included" in totals[-1][0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("googlenet", "and 6,379,728 that only training uses"),
        ("vgg16_bn", "15,237,608 activations, those of the image included: 61.0 MB"),
        ("lenet5", "61,750 parameters"),
    ],
)
def test_networks_without_stages(capsys, name, said):
    main([name])
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet51"], "there is no model 'resnet51'; did you mean"),
        (["resnet18", "--option", "widht=3"], "there is no option of resnet18 'widht'; did you"),
        (["resnet18", "--option", "width"], "'width' is not an option; options are KEY=VALUE"),
        (["resnet18", "--option", "width=wide"], "resnet18 cannot be made with {'width': 'wide'}"),
        (["resnet18", "--image_size", "0"], "the image's shape is (0, 0, 3); it must be"),
        (["resnet18", "--batch", "0"], "--batch is 0; it must be at least 1"),
        (["lenet5", "--image_size", "28"], "LeNet-5 needs images of 32x32 pixels"),
    ],
)
def test_wrong_input_is_refused(capsys, arguments, message):
    with pytest.raises(InputError) as error:
        main(arguments)
    assert str(error.value).startswith(message)
    assert capsys.readouterr().out == ""


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-m", "resnet_jax", "summary", "lenet5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # before anything is written
        assert process.stderr.read() == b""
