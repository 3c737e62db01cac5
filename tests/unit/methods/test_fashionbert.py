from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from finegrain.errors import RecipeError, WeightsError
from finegrain.losses import adaptive_weights, itc, sdm
from finegrain.methods import Batch, FashionBertConfig
from finegrain.methods import fashionbert as module
from finegrain.methods.token_masking import Masked
from finegrain.models import TextConfig, TimmConfig, VitConfig
from finegrain.models.joint_bert import BertConfig
from finegrain.models.patches import PatchConfig

TINY = FashionBertConfig(image=VitConfig(), text=TextConfig(context_length=16)).tiny()
FROZEN = replace(TINY.patches, frozen=True)
ALL = ("sdm", "itc", "tia", "mlm", "mpm")
JOINT = ("tia", "mlm", "mpm")


@pytest.fixture
def batch():
    torch.manual_seed(0)
    ids = torch.zeros(4, 12, dtype=torch.int32)
    ids[:, 0], ids[:, 1:9], ids[:, 9] = 49406, torch.randint(300, 500, (4, 8)), 49407
    return Batch(
        pixels=torch.randint(0, 256, (4, 3, TINY.image.height, TINY.image.width)).byte(),
        ids=ids,
        eot=torch.full((4,), 9, dtype=torch.int32),
        pids=torch.tensor([0, 1, 1, 7]),
        items=torch.arange(4),
        where=("a", "b", "c", "d"),
        groups=torch.tensor([1, 1, 2, 0]),
    )


def built(losses=ALL, **changes):
    torch.manual_seed(1)
    return replace(TINY, **changes).build(losses)


@pytest.mark.parametrize("names", [ALL, ("sdm", "tia"), ("itc", "mpm", "tia"), ("sdm", *JOINT)])
def test_it_returns_the_requested_losses(names, batch):
    losses = built(names)(batch)
    assert losses.keys() == set(names)
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("weighting", ["fixed", "values", "gradients"])
def test_every_parameter_except_a_frozen_patch_encoder_has_a_gradient(weighting, batch):
    model = built(weighting=weighting, patches=FROZEN)
    torch.stack(list(model(batch).values())).sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle
    assert all(name.startswith("patches.backbone.") for name in idle)


def test_a_trained_patch_encoder_has_a_gradient(batch):
    model = built()
    torch.stack(list(model(batch).values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_adaptive_loss_is_returned_in_its_parts(batch):
    result = {}
    for weighting in ("fixed", "values", "gradients"):
        model = built(weighting=weighting).eval()
        torch.manual_seed(2)
        result[weighting] = model(batch)
    plain = torch.stack([result["fixed"][name] for name in JOINT])
    weighted = torch.stack([result["values"][name] for name in JOINT])
    torch.testing.assert_close(weighted, adaptive_weights(plain) * plain)
    shares = torch.stack([result["gradients"][name] for name in JOINT]) / plain
    assert shares.sum().item() == pytest.approx(1, abs=1e-5)
    assert 2 / 7 - 1e-5 <= shares.min() <= shares.max() <= 3 / 7 + 1e-5
    for name in ("sdm", "itc"):
        assert torch.equal(result["fixed"][name], result["values"][name])


def test_the_contrastive_loss_treats_pictures_of_a_product_as_matches(batch):
    model = built().eval()
    losses = model(batch)
    images = model.encode_images(batch.pixels)
    texts = model.encode_texts(batch.ids, batch.eot)
    scale = torch.tensor(50.0)
    torch.testing.assert_close(losses["sdm"], sdm(images, texts, batch.pids, scale))
    torch.testing.assert_close(losses["itc"], itc(images, texts, batch.pids, scale))


def gradients(loss, model):
    """Gradients of the parameters that a loss depends on, by name."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    result = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(names, result, strict=True) if g is not None}


@pytest.mark.parametrize("negatives", ["any", "subcategory"])
@pytest.mark.parametrize("hide", ["everywhere", "apart"])
def test_losses_and_gradients_equal_those_of_single_pairs(hide, negatives, batch, monkeypatch):
    """Single pairs go through the encoder, and single words through the head."""
    model = built(weighting="fixed", hide=hide, negatives=negatives).eval()
    all_ids = batch.ids
    if negatives == "subcategory":
        wrong = batch.ids.flip(0) + (batch.ids.flip(0) < 500) * (batch.ids.flip(0) > 0) * 7
        batch = replace(batch, wrong_ids=wrong, wrong_eot=batch.eot)
        all_ids = torch.cat([batch.ids, wrong])
    drawn = []

    def recording(name):
        original = getattr(module, name)

        def call(*args, **kwargs):
            drawn.append(original(*args, **kwargs))
            return drawn[-1]

        monkeypatch.setattr(module, name, call)

    recording("mask_whole_words")
    recording("given_candidates" if negatives == "subcategory" else "draw_candidates")
    of_patches = model._hide_patches
    monkeypatch.setattr(model, "_hide_patches", lambda f: drawn.append(of_patches(f)) or drawn[-1])
    losses = model(batch)
    hidden, pairs, masked = drawn
    assert (masked.targets > 0).any()
    assert len(pairs.matches) == 8
    features = model.patches(batch.pixels)
    tia, mlm, mpm = [], [], []
    for picture, caption, match in zip(*(column.tolist() for column in pairs), strict=True):
        shown = features[picture].clone()
        shown[hidden[picture]] = 0
        row = slice(caption, caption + 1)
        tokens = model.joint(masked.ids[row, :10], batch.eot[:1], shown[None])  # no padding
        whole = tokens
        if hide == "apart":
            whole = model.joint(all_ids[row, :10], batch.eot[:1], features[picture][None])
        scores = model.match_head(torch.tanh(model.joint.bert.pooler(whole[:, 0])))
        tia.append(-scores.log_softmax(1)[0, match])
        if hide == "apart" and not match:
            continue
        for at in torch.nonzero(masked.targets[caption])[:, 0].tolist():
            scores = model.word_head(tokens[0, at], model.joint.bert.words.weight)
            mlm.append(-scores.log_softmax(0)[masked.targets[caption, at]])
        for at in torch.nonzero(hidden[picture])[:, 0].tolist():
            guess = (model.patch_head.weight @ tokens[0, 10 + at]).softmax(0)
            target = features[picture, at].detach().softmax(0)
            mpm.append((target * (target.log() - guess.log())).sum())
    for name, parts in zip(JOINT, (tia, mlm, mpm), strict=True):
        literal = torch.stack(parts).mean()
        torch.testing.assert_close(losses[name], literal, atol=1e-4, rtol=1e-4)
        own, theirs = gradients(losses[name], model), gradients(literal, model)
        assert own.keys() == theirs.keys()
        assert {"joint.bert.words.weight", "joint.patch_embedding.projection.weight"} <= own.keys()
        for parameter, gradient in own.items():
            largest = theirs[parameter].abs().max().item()
            torch.testing.assert_close(
                gradient, theirs[parameter], atol=1e-3 * largest + 1e-6, rtol=1e-3, msg=parameter
            )


def test_captions_without_a_masked_word_give_a_loss_of_zero(batch, monkeypatch):
    nothing = Masked(batch.ids, torch.zeros_like(batch.ids))
    monkeypatch.setattr(module, "mask_whole_words", lambda *_, **__: nothing)
    model = built(("sdm", "tia", "mlm"), weighting="fixed")
    losses = model(batch)
    assert losses["mlm"].item() == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_same_number_of_patches_is_masked_in_each_picture():
    model = built(patches=PatchConfig(model="test_resnet", grids=(3,), pixels=32), masked_patches=2)
    hidden = model._hide_patches(torch.zeros(500, 9, 4))
    assert hidden.sum(dim=1).unique().tolist() == [2]
    assert hidden.float().mean(dim=0).sub(2 / 9).abs().max() < 0.07


def test_a_batch_of_one_product_has_matching_pairs_only(batch):
    alone = replace(batch, pids=torch.zeros(4, dtype=torch.long))
    losses = built()(alone)
    assert all(loss.isfinite() for loss in losses.values())


def test_a_picture_may_have_several_captions(batch):
    twice = replace(
        batch, ids=batch.ids.repeat_interleave(2, 0), eot=batch.eot.repeat_interleave(2)
    )
    assert all(loss.isfinite() for loss in built()(twice).values())


@torch.no_grad()
def test_the_re_ranker_is_the_log_odds_of_the_match_head(batch):
    model = built().eval()
    got = model.match_logits(batch.pixels, batch.ids, batch.eot)
    assert got.shape == (4,)
    tokens = model.joint(batch.ids, batch.eot, model.patches(batch.pixels))
    share = F.softmax(model.match_head(model.joint.bert.pool(tokens)), dim=1)[:, 1]
    torch.testing.assert_close(got.sigmoid(), share)
    short = model.match_logits(batch.pixels, batch.ids[:, :10], batch.eot)
    torch.testing.assert_close(got, short, atol=1e-5, rtol=1e-5)
    one = model.match_logits(batch.pixels[2:3], batch.ids[2:3], batch.eot[2:3])
    torch.testing.assert_close(got[2:3], one, atol=1e-5, rtol=1e-5)


class ReRanker(torch.nn.Module):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, pixels, ids, eot):
        return self.method.match_logits(pixels, ids, eot)


@pytest.mark.slow
@torch.no_grad()
def test_the_re_ranker_exports_with_dynamic_shapes(batch):
    """One graph is for any number of pairs and any length of captions."""
    model = built().eval()
    pairs, length = torch.export.Dim("pairs", min=1), torch.export.Dim("length", min=2, max=16)
    program = torch.export.export(
        ReRanker(model),
        (batch.pixels[:2], batch.ids[:2], batch.eot[:2]),
        dynamic_shapes=({0: pairs}, {0: pairs, 1: length}, {0: pairs}),
    ).module()
    for n, tokens in ((4, 12), (3, 10), (1, 10)):
        given = batch.pixels[:n], batch.ids[:n, :tokens], batch.eot[:n]
        torch.testing.assert_close(
            program(*given), model.match_logits(*given), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("width", [768, 192])
def test_a_narrow_joint_encoder_starts_with_larger_weights(width):
    torch.manual_seed(0)
    joint = BertConfig(channels=width, depth=1, heads=2)
    model = replace(TINY, joint=joint).build(("sdm", "tia"))
    wanted = 0.02 * (768 / width) ** 0.5
    layer = model.joint.bert.layers[0]
    for weight in (layer.query.weight, layer.mlp_out.weight, model.joint.bert.pooler.weight):
        assert weight.std().item() == pytest.approx(wanted, rel=0.03)
    assert model.joint.bert.words.weight.std().item() == pytest.approx(0.02, rel=0.03)


def test_a_timm_tower_is_supported(batch):
    model = built(image=TimmConfig(model="test_resnet", height=128, width=64))
    assert model(batch).keys() == set(ALL)


def same(one, other):
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def test_local_files_initialise_encoder_and_patch_encoder(tmp_path):
    backbone = timm.create_model("test_resnet", num_classes=3)
    save_file(backbone.state_dict(), tmp_path / "patches.safetensors")
    model = built(patch_weights=str(tmp_path / "patches.safetensors"))
    assert not same(model.patches.backbone, backbone)
    model.load_other_weights()
    assert same(model.patches.backbone, backbone)
    missing = built(bert_weights=str(tmp_path / "bert.safetensors"))
    with pytest.raises(WeightsError, match="there is no weight file"):
        missing.load_other_weights()


def test_a_frozen_patch_encoder_starts_from_a_file():
    with pytest.raises(RecipeError, match=r"these would be random.*patches\.frozen=false"):
        built(patches=FROZEN).load_other_weights()
    built().load_other_weights()


def test_mined_negatives_follow_the_similarity_of_the_towers(batch, monkeypatch):
    model = built(("itc", "tia"), negatives="mined", temperature=0.5).eval()
    given = []
    draw = module.draw_candidates
    monkeypatch.setattr(
        module, "draw_candidates", lambda *a, **k: given.append(k["logits"]) or draw(*a, **k)
    )
    twice = replace(
        batch, ids=batch.ids.repeat_interleave(2, 0), eot=batch.eot.repeat_interleave(2)
    )
    model(twice)
    built(("itc", "tia")).eval()(twice)
    texts = model.encode_texts(twice.ids, twice.eot)
    images = model.encode_images(twice.pixels)
    torch.testing.assert_close(given[0], texts @ images.T / 0.5)
    assert given[0].shape == (8, 4)
    assert not given[0].requires_grad
    assert given[1] is None


def test_wrong_settings_are_refused():
    with pytest.raises(RecipeError, match="FashionBERT computes the losses sdm, itc, tia"):
        TINY.build(["sdm", "tia", "mim"])
    for names in (("sdm", "mlm"), ("tia", "mlm")):
        with pytest.raises(RecipeError, match="expected the losses tia and one of sdm, itc"):
            TINY.build(names)
    with pytest.raises(RecipeError, match="neither mlm nor mpm hides anything"):
        built(("sdm", "tia"), hide="apart")
    with pytest.raises(RecipeError, match="from 1 to the 4 patches of a picture, got 5"):
        replace(TINY, masked_patches=5)
    with pytest.raises(RecipeError, match="expected a vocabulary of 100, got 49408"):
        replace(TINY, text=replace(TINY.text, vocabulary=100))
    with pytest.raises(RecipeError, match=r"up to 16 tokens.*has 8 positions"):
        replace(TINY, joint=replace(TINY.joint, positions=8))
    small = replace(
        TINY,
        text=replace(TINY.text, vocabulary=100),
        joint=replace(TINY.joint, vocabulary=100),
    )
    with pytest.raises(RecipeError, match=r"whole words of CLIP's 49408 tokens.*has 100"):
        small.build(("sdm", "tia", "mlm"))
    assert small.build(("sdm", "tia"))


def test_word_embeddings_of_the_tower_are_copied_once():
    model = built(words="tower")
    drawn = model.joint.bert.words.weight.detach().clone()
    model.start_epoch(1, ())
    assert torch.equal(model.joint.bert.words.weight, drawn)
    model.start_epoch(0, ())
    taken, learned = model.joint.bert.words.weight, model.text_tower.token_embedding.weight
    assert torch.allclose(F.normalize(taken), F.normalize(learned), atol=1e-5)
    assert taken.std().item() == pytest.approx(drawn.std().item(), rel=1e-3)


def test_word_embeddings_of_another_width_are_refused():
    with pytest.raises(RecipeError, match="as wide as the text tower"):
        replace(TINY, words="tower", joint=replace(TINY.joint, channels=64))
