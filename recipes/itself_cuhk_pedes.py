"""ITSELF on CUHK-PEDES, trained as in the released code (Nguyen et al., WACV 2026).

Source: https://arxiv.org/abs/2601.01024. It starts from OpenAI's CLIP: put ``ViT-B-16.pt`` at the
path ``weights``. We have not measured the results of this recipe: neither the pictures nor the
weights were available.

The script of the released code trains the global embedding alone. This recipe is for the options
that it has commented out, which are those of the paper.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import ItselfConfig, RdeConfig
from finegrain.recipe import Expected, ParameterRule


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("rde_cuhk_pedes.py"))
    towers = parent.method
    assert isinstance(towers, RdeConfig)
    biases, selections = parent.optimizer.rules
    return replace(
        parent,
        name="itself_cuhk_pedes",
        about="ITSELF (WACV 2026) on CUHK-PEDES, from CLIP ViT-B/16",
        method=ItselfConfig(
            image=towers.image,
            text=towers.text,
            identities=11003,
            short_captions=towers.short_captions,
            wrong_class="batch",
        ),
        losses={
            "tal_global": 1.0,
            "tal_selected": 1.0,
            "cid_global": 1.0,
            "cid_selected": 1.0,
            # The released code adds the two cross-entropies, of which `id` is the mean.
            "id_global": 2.0,
            "id_selected": 2.0,
        },
        optimizer=replace(
            parent.optimizer,
            rules=(
                biases,
                ParameterRule(names="*_heads.pairs.*", lr=5.0),
                ParameterRule(names="*_heads.people.*", lr=5.0),
                selections,
            ),
        ),
        batch_size=256,
        items_per_identity=2,
        workers=4,
        expected=Expected(
            rank1=76.95,
            mAP=69.38,
            source="the paper's table, epoch and share of the global embedding selected on test",
        ),
    )
