"""FashionBERT on Fashion-Gen (Gao et al., SIGIR 2020), with CLIP's towers beside it.

The joint encoder is trained as the paper's released code trains it, from BERT-base and a
frozen ResNet-50: put these files and OpenAI's ``ViT-B-16.pt`` where the recipe says. The
patches are of 32x32 pixels, an eighth of a picture. Three things differ (docs/hyperparameters.md
lists every value). The towers are ours: the paper scores every pair by the encoder, and here it
only re-ranks their hits. The words are CLIP's tokens instead of BERT's word pieces, and the
encoder learns their embeddings from nothing. The ResNet is timm's instead of TensorFlow's.

What this recipe reaches has not been measured by us: neither the pictures nor the weights
could be had. The paper's figures, 26.75 % rank 1 from text to image, are of 101 candidates a
query and not of the whole gallery.
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
        # The released checkpoint is of step 54,198.
        schedule=Schedule(epochs=14, steps=54198, warmup=0.1, decay="linear"),
        # A right and a wrong pair of each picture: 128 pairs a step.
        batch_size=64,
        workers=8,
        seed=123123,
    )
