"""The files of a repository that are downloaded."""

from __future__ import annotations

import pytest

from finegrain.errors import WeightsError
from finegrain.zoo.choice import PAIRS, choose_files

HUGGING_FACE = ["README.md", "config.json", "merges.txt", "model.safetensors", "vocab.json"]


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (HUGGING_FACE, ["model.safetensors"]),
        (["config.json", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["pytorch_model.bin", "model.safetensors", "tf_model.h5"], ["model.safetensors"]),
        # Without a prefix, this is the name of timm's image tower in such repositories.
        (
            ["model.safetensors", "open_clip_model.safetensors", "open_clip_config.json"],
            ["open_clip_model.safetensors"],
        ),
        (["open_clip_pytorch_model.bin", "open_clip_config.json"], ["open_clip_pytorch_model.bin"]),
        (["best.pth", "configs.yaml", "optimizer.pt"], ["best.pth"]),
        (["best.pth", "best.safetensors"], ["best.safetensors"]),
        ([*PAIRS[0], "model.safetensors"], list(PAIRS[0])),
        ([*PAIRS[1], "onnx/vision_model_fp16.onnx"], list(PAIRS[1])),
        (["onnx/model.onnx", "config.json"], ["onnx/model.onnx"]),
        (["onnx/model.onnx", "model.safetensors"], ["model.safetensors"]),
        ([PAIRS[0][0], "model.safetensors"], ["model.safetensors"]),
        ([*PAIRS[0], "visual/model.onnx_data"], [*PAIRS[0], "visual/model.onnx_data"]),
    ],
)
def test_the_weight_file_is_chosen(names, weights):
    choice = choose_files(names, "a/b")
    assert list(choice.weights) == weights
    assert choice.kind == ("onnx" if weights[0].endswith(".onnx") else "torch")


def test_companions_are_configurations_and_tokenizers_beside_the_weights():
    names = [*HUGGING_FACE, "modeling_clip.py", "training.log", "old/config.json", "pic.png"]
    assert choose_files(names, "a/b").companions == (
        "README.md", "config.json", "merges.txt", "vocab.json",
    )  # fmt: skip
    names = [*PAIRS[0], "textual/tokenizer.json", "visual/preprocess_cfg.json", "config.json"]
    assert len(choose_files(names, "a/b").companions) == 3


def test_a_named_file_is_chosen():
    names = ["epoch_1.pt", "epoch_2.pt", *PAIRS[0]]
    assert choose_files(names, "a/b", "epoch_2.pt").weights == ("epoch_2.pt",)
    assert choose_files(names, "a/b", "textual/model.onnx").weights == PAIRS[0]


@pytest.mark.parametrize(
    ("names", "file", "message"),
    [
        (["epoch_1.pt", "epoch_2.pt"], None, r"2 weight files.*epoch_1.pt, epoch_2.pt.*--file"),
        (["README.md", "model.gguf"], None, "no weights in a layout.*README.md, model.gguf"),
        ([], None, "no files at all"),
        (["model-00001-of-00002.safetensors"], None, r"several files.*with the index"),
        (["pytorch_model-00001-of-00002.bin"], None, r"several files.*reads safetensors"),
        (["a.pt", "b.pt"], "c.pt", "has no file 'c.pt'; it has a.pt, b.pt"),
        ([*PAIRS[0], "visual/model_q.onnx"], "visual/model_q.onnx", "it reads visual/model.onnx"),
        (["x.onnx"], "x.onnx", "it reads none of its graphs"),
        ([f"{n}.pt" for n in range(100)], None, "and 88 more"),
    ],
)
def test_ambiguous_and_missing_files_are_errors(names, file, message):
    with pytest.raises(WeightsError, match=message):
        choose_files(names, "a/b", file)
