"""Published person models of IRRA's family, from their files to embeddings.

Each is written with the tensor names of its released checkpoint and read again. The embeddings are
compared with a literal forward pass of its released code.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.person_models import (
    CONTEXT,
    DIM,
    HEIGHT,
    MODELS,
    PEOPLE,
    SELECTED,
    WIDTH,
    normalised,
    write_person_model,
)

from finegrain import load_recipe
from finegrain.cli.parser import main
from finegrain.encoder import Encoder
from finegrain.errors import WeightsError
from finegrain.plan import Plan
from finegrain.runs.conversion import released_to_run, run_to_released
from finegrain.runs.published import read_published
from finegrain.runs.run import build_method, load_run
from finegrain.zoo.files import read_state_dict
from finegrain.zoo.recognition import recognise

RECIPES = Path(__file__).parents[2] / "recipes"
TEXTS = ["a woman in a red coat", "man", "a person with a black backpack and white shoes", "of 3"]


def encoded(ids_of):
    """Ids as the released code makes them, padded to the context length, and positions of their
    ends."""
    batch = ids_of.encode(TEXTS, pad_to=CONTEXT)
    ids = torch.from_numpy(batch.ids).long()
    assert torch.equal(ids.argmax(dim=1), torch.from_numpy(batch.eot).long())
    return ids, torch.from_numpy(batch.eot)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_embeddings_equal_those_of_the_released_code(name, tmp_path):
    theirs = write_person_model(name, tmp_path / "best.pth")
    published = read_published(tmp_path / "best.pth")
    assert published.layout == MODELS[name][0]
    ids, ends = encoded(published.recipe.method.text.tokenizer())
    pixels = torch.randint(0, 256, (3, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    wanted = theirs.texts(ids)
    got = published.method.encode_texts(ids.int(), ends)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    images = theirs.images(normalised(pixels))
    torch.testing.assert_close(published.method.encode_images(pixels), images, atol=1e-5, rtol=0)
    for embeddings in (wanted, images):  # if all were equal, nothing would be compared
        assert torch.pdist(embeddings).min() > 1e-2
    torch.testing.assert_close(got @ images.T, wanted @ images.T, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HAM", "ITSELF"])
def test_a_published_person_model_becomes_a_plan(name, tmp_path, capsys):
    write_person_model(name, tmp_path / "model" / "best.pth")
    out = tmp_path / "model.plan"
    assert main(["pull", "--from", str(tmp_path / "model"), "-o", str(out)]) == 0
    assert main(["doctor", str(out)]) == 0
    plan = Plan(out)
    method = MODELS[name][0]
    shown = "IRRA, or of a fork" if method == "irra" else name.partition(" ")[0]
    assert f"model: {shown}" in capsys.readouterr().out
    eager = read_published(tmp_path / "model").method
    encoder = Encoder.from_plan(plan)
    ids, ends = encoded(encoder.tokenizer)
    with torch.no_grad():
        wanted = eager.encode_texts(ids.int(), ends).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), wanted, atol=1e-5, rtol=0)


def test_two_methods_with_the_same_tensors_for_search_are_distinguished(tmp_path):
    for name in ("RDE", "ITSELF", "LPNC"):
        write_person_model(name, tmp_path / f"{name}.pth")
    layouts = [recognise(read_state_dict(path)) for path in sorted(tmp_path.glob("*.pth"))]
    assert layouts == ["itself", "lpnc", "rde"]


def test_an_unknown_part_is_refused(tmp_path):
    write_person_model("LPNC", tmp_path / "best.pth")
    state = torch.load(tmp_path / "best.pth", weights_only=True)["model"]
    torch.save({"model": state | {"prompt_head.weight": torch.ones(1)}}, tmp_path / "best.pth")
    with pytest.raises(WeightsError, match=r"1 tensors that this model does not know: prompt_head"):
        read_published(tmp_path / "best.pth")


@torch.no_grad()
def test_itself_is_converted_with_its_heads_and_back(tmp_path):
    theirs = write_person_model("ITSELF", tmp_path / "best.pth")
    overrides = [f"method.identities={PEOPLE}", f"method.selected_dim={SELECTED}"]
    released_to_run(tmp_path / "best.pth", tmp_path / "run", overrides=overrides, heads=True)
    run_to_released(tmp_path / "run", tmp_path / "again.pth")
    again = read_state_dict(tmp_path / "again.pth")
    own = theirs.state_dict()
    unused = ("visul_emb_layer.linear.", "visul_emb_layer.mlp.bns.1", "texual_emb_layer.mlp.bns.1")
    assert set(own) - set(again) == {name for name in own if name.startswith(unused)}
    for name, tensor in again.items():
        torch.testing.assert_close(tensor, own[name].half().to(tensor.dtype), msg=name)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        *(("NAM", recipe) for recipe in ("irra_cuhk_pedes", "rde_cuhk_pedes", "itself_cuhk_pedes")),
        ("HAM", "finegrain_cuhk_pedes"),
        *(("GA-DMS", recipe) for recipe in ("tbps_clip_cuhk_pedes", "tiny_synthetic")),
    ],
)
@torch.no_grad()
def test_person_pretraining_gives_every_recipe_of_clip_its_towers(name, recipe, tmp_path):
    """NAM is pretrained on LUPerson-MLLM. Heads, selections, queues and scales stay as drawn."""
    theirs = write_person_model(name, tmp_path / "best.pth").base_model.state_dict()
    published = read_published(tmp_path / "best.pth").recipe.method
    weights = str(tmp_path / "best.pth")
    base = load_recipe(RECIPES / f"{recipe}.py", [f"weights={weights}"])
    method = base.method.tiny()
    width = "global_dim" if hasattr(method, "global_dim") else "embed_dim"
    small = replace(method, image=published.image, text=published.text, **{width: DIM})
    state = build_method(replace(base, method=small)).state_dict()
    for side, prefix in (("image_tower", "visual."), ("text_tower", "")):
        own = {n.removeprefix(f"{side}."): t for n, t in state.items() if n.startswith(side)}
        assert len(own) > 25
        for part, tensor in own.items():
            torch.testing.assert_close(tensor, theirs[prefix + part], msg=part)


def test_the_share_of_the_global_embedding_can_be_chosen(tmp_path):
    write_person_model("ITSELF", tmp_path / "best.pth")
    converted = released_to_run(
        tmp_path / "best.pth", tmp_path / "run", overrides=["method.global_share=0.68"]
    )
    assert "a checkpoint of ITSELF" in str(converted)
    assert "no configuration of the released code says" in converted.recipe.evaluation_only
    _, method, _ = load_run(tmp_path / "run")
    ids, ends = encoded(converted.recipe.method.text.tokenizer())
    with torch.no_grad():
        whole = method.eval().encode_texts(ids.int(), ends)[:, : converted.recipe.method.global_dim]
    torch.testing.assert_close(whole.norm(dim=1), torch.full((len(ids),), 0.68**0.5))
