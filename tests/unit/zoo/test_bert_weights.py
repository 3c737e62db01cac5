from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import BertConfig as TheirConfig
from transformers import BertForPreTraining

from finegrain.errors import WeightsError
from finegrain.models.joint_bert import Bert, BertConfig
from finegrain.zoo.hf_bert import convert, load_bert_weights
from finegrain.zoo.timm_file import load_backbone_weights

CONFIG = BertConfig(vocabulary=30, positions=12, channels=8, depth=1, heads=2)


@pytest.fixture(scope="module")
def theirs():
    """BERT with the heads of Google's checkpoints."""
    model = BertForPreTraining(
        TheirConfig(
            vocab_size=30,
            max_position_embeddings=12,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
    )
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def old_names(state):
    """Names of gains and offsets in files that were converted from TensorFlow."""
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("named", [dict, old_names])
def test_a_file_fills_the_encoder(theirs, named, tmp_path):
    save_file(named(theirs), tmp_path / "model.safetensors")
    bert = Bert(CONFIG)
    load_bert_weights(bert, tmp_path / "model.safetensors")
    filled = bert.state_dict()
    assert torch.equal(filled["words.weight"], theirs["bert.embeddings.word_embeddings.weight"])
    name = "bert.encoder.layer.0.output.LayerNorm.bias"
    assert torch.equal(filled["layers.0.mlp_norm.bias"], theirs[name])
    assert torch.equal(filled["pooler.weight"], theirs["bert.pooler.dense.weight"])


def test_word_embeddings_of_another_vocabulary_are_not_loaded(theirs, tmp_path):
    save_file(theirs, tmp_path / "model.safetensors")
    bert = Bert(BertConfig(vocabulary=40, positions=12, channels=8, depth=1, heads=2))
    before = bert.words.weight.clone()
    load_bert_weights(bert, tmp_path / "model.safetensors", words=False)
    assert torch.equal(bert.words.weight, before)
    assert torch.equal(bert.types.weight, theirs["bert.embeddings.token_type_embeddings.weight"])
    with pytest.raises(WeightsError, match=r"words\.weight \(30, 8\) for \(40, 8\).*method\.joint"):
        load_bert_weights(bert, tmp_path / "model.safetensors")


def test_an_encoder_of_another_kind_is_refused():
    with pytest.raises(WeightsError, match=r"roberta\.embeddings"):
        convert({"roberta.embeddings.word_embeddings.weight": torch.zeros(2, 2)})


def test_a_backbone_is_filled_without_its_classifier(tmp_path):
    theirs = timm.create_model("test_resnet", num_classes=7)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    backbone = timm.create_model("test_resnet", num_classes=0)
    load_backbone_weights(backbone, tmp_path / "model.safetensors")
    assert all(torch.equal(t, theirs.state_dict()[n]) for n, t in backbone.state_dict().items())


def test_a_file_may_lack_the_counters_of_batches(tmp_path):
    theirs = timm.create_model("test_resnet", num_classes=0).state_dict()
    old = {name: tensor for name, tensor in theirs.items() if "num_batches" not in name}
    assert len(old) < len(theirs)
    save_file(old, tmp_path / "model.safetensors")
    backbone = timm.create_model("test_resnet", num_classes=0)
    load_backbone_weights(backbone, tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, theirs[n]) for n, tensor in backbone.state_dict().items())


def test_another_backbone_is_refused(tmp_path):
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    backbone = timm.create_model("test_resnet", num_classes=0)
    with pytest.raises(WeightsError, match="Choose the backbone of the file by its name"):
        load_backbone_weights(backbone, tmp_path / "model.safetensors")
