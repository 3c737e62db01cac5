"""FashionBERT on Fashion-Gen (Gao et al., SIGIR 2020), with the towers of CLIP as its retriever.

Source: https://arxiv.org/abs/2005.09801. The joint encoder is trained as in the released code,
from BERT-base and a frozen ResNet-50. Put these files and OpenAI's ``ViT-B-16.pt`` at the paths
in the recipe. A patch has 32x32 pixels: each side is an eighth of the picture's.

Three things differ from the paper (docs/hyperparameters.md lists every value):

- The towers are an addition. The paper scores every pair by the encoder; here the encoder only
  re-ranks the hits of the towers.
- The tokens are CLIP's instead of BERT's word pieces, and their embeddings start from random
  values.
- The ResNet is timm's instead of TensorFlow's.

We have not measured the results of this recipe: neither the pictures nor the weights were
available. The paper's result, 26.75 % rank 1 from text to image, is for 101 candidates per query
and not for the whole gallery.
"""

from finegrain import Recipe
from finegrain.data.datasets import FashionGen
from finegrain.methods import FashionBertConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.models.joint_bert import BertConfig
from finegrain.recipe import Augment, Optimizer, ParameterRule, Schedule


def recipe() -> Recipe:
    return Recipe(
        name="fashionbert_fashion_gen",
        about="FashionBERT (SIGIR 2020) on Fashion-Gen, beside CLIP ViT-B/16",
        data=FashionGen(root="data/Fashion-Gen"),
        method=FashionBertConfig(
            image=VitConfig(height=256, width=256),
            text=TextConfig(context_length=64),
            joint=BertConfig(activation="gelu_tanh"),
            negatives="subcategory",
            patch_weights="weights/resnet50.safetensors",
            bert_weights="weights/bert-base-uncased.safetensors",
        ),
        weights="weights/ViT-B-16.pt",
        losses={"sdm": 1.0, "tia": 1.0, "mlm": 1.0, "mpm": 1.0},
        augment=Augment(flip=0.0, pad=0.0, erase=0.0),
        optimizer=Optimizer(
            kind="adam",
            lr=1e-4,
            betas=(0.9, 0.98),
            eps=1e-6,
            eps_uncorrected=True,
            weight_decay=0.0,
            clip_norm=1.0,
            rules=(
                ParameterRule(names="image_tower.*", lr=0.1),
                ParameterRule(names="text_tower.*", lr=0.1),
            ),
        ),
        # The released checkpoint is that of step 54,198.
        schedule=Schedule(epochs=14, steps=54198, warmup=0.1, decay="linear"),
        # Each picture has a matching and a non-matching pair: 128 pairs per step.
        batch_size=64,
        workers=8,
        seed=123123,
    )
