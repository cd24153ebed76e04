"""What is printed: problems in terms of the command's options, on one line."""

import argparse

import pytest

from tf_gradcam._cli.arguments import make_parser
from tf_gradcam._cli.terminal import print_problem, with_option_names


@pytest.fixture
def arguments() -> argparse.Namespace:
    """An export's, which has `--layer` and `--top-k`, but no `--target`."""
    return make_parser().parse_args(["export", "--out", "served"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("`layer` must be a name.", "`--layer` must be a name."),
        ("`top_k` must be a number.", "`--top-k` must be a number."),
        ("`layer` and `target` must", "`--layer` and `target` must"),
        ("layer='conv9', not a layer", "layer='conv9', not a layer"),
        ("`--layer` is gone", "`--layer` is gone"),
        ("`--model tiny.keras` needs", "`--model tiny.keras` needs"),
        ("`path` must end in '.onnx'", "`path` must end in '.onnx'"),
    ],
)
def test_an_argument_that_is_an_option_is_named_as_one(text, said, arguments):
    assert with_option_names(text, arguments) == said


def test_a_positional_argument_is_no_option():
    arguments = make_parser().parse_args(["explain", "cat.png"])
    assert with_option_names("`photos` and `target`", arguments) == "`photos` and `--target`"


def test_a_problem_is_one_line_and_what_it_is_about_stays_as_it_is(arguments, capsys):
    print_problem("`layer` is\n gone\x1b[31m", arguments, "warning", about="`layer`.png\n")
    assert capsys.readouterr().err == "tf-gradcam: warning: `layer`.png: `--layer` is gone\\x1b[31m\n"
