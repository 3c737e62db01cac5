from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from finegrain.data.lexicon import COLORS
from finegrain.errors import RecipeError
from finegrain.methods import Batch, ClipConfig, IrraConfig, RdeConfig
from finegrain.methods.color_tasks import (
    COLOR_TASKS,
    PART,
    add_color_tasks,
    blank_words,
    color_word_ids,
)
from finegrain.methods.token_masking import MASK
from finegrain.models import ConvConfig, TextConfig, TimmConfig, VitConfig
from finegrain.models.lapscore import Colorizer, WordFiller
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.runs.run import assemble

TEXT = TextConfig(context_length=24, channels=16, depth=1, heads=2)
VIT = VitConfig(height=32, width=16, patch=8, channels=32, depth=1, heads=2)
CLIP = ClipConfig(image=VIT, text=TEXT, embed_dim=16)
CAPTIONS = (
    "a man in a red coat and blue jeans",
    "grey shirt, grey-haired",
    "no colour at all",
    "a Beige dress with maroon flowers",
)


def batch_of(captions=CAPTIONS, *, each=1, height=32, width=16, fill=None):
    tokens = clip_tokenizer(24).encode(captions)
    count = len(captions) // each
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, height, width), generator=generator)
    if fill is not None:
        pixels = torch.full_like(pixels, fill)
    return Batch(
        pixels=pixels.to(torch.uint8),
        ids=torch.from_numpy(tokens.ids),
        eot=torch.from_numpy(tokens.eot),
        pids=torch.arange(count),
        items=torch.arange(count),
        where=tuple(map(str, range(count))),
    )


def with_tasks(config=CLIP, tasks=COLOR_TASKS, losses=("itc",)):
    torch.manual_seed(0)
    method = config.build(losses)
    add_color_tasks(method, tasks)
    return method


# --- masked colour words ----------------------------------------------------------------


def test_the_colours_of_the_lexicon_are_words_of_one_token():
    ids = color_word_ids()
    assert torch.equal(ids, ids.unique())
    words = sum(len(group) for group in COLORS.values())
    assert words - 2 <= len(ids) <= words
    assert {clip_tokenizer().encode([name]).ids[0, 1] for name in COLORS} <= set(ids.tolist())


def test_only_colour_words_are_masked():
    batch = batch_of()
    masked = blank_words(batch.ids, color_word_ids())
    tokenizer = clip_tokenizer(24)

    def ids_of(*words):
        return [int(tokenizer.encode([word]).ids[0, 1]) for word in words]

    hidden = [row[row > 0].tolist() for row in masked.targets]
    expected = ["red", "blue"], ["grey", "grey"], [], ["beige", "maroon"]
    assert hidden == [ids_of(*words) for words in expected]
    assert torch.equal(masked.ids == MASK, masked.targets > 0)
    assert torch.equal(torch.where(masked.targets > 0, masked.targets, masked.ids), batch.ids)
    assert masked.targets.dtype == batch.ids.dtype


# --- heads ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 16), (30, 13), (8, 8)])
def test_the_map_of_colours_has_a_cell_for_every_eight_pixels(size):
    height, width = size
    predicted = Colorizer(16)(torch.rand(2, 1, height, width), torch.randn(6, 16))
    assert predicted.shape == (6, 2, -(-height // 8), -(-width // 8))


@torch.no_grad()
def test_tokens_after_the_end_of_a_caption_are_ignored():
    torch.manual_seed(0)
    filler = WordFiller(16, words=5).eval()
    tokens, images = torch.randn(2, 6, 16), torch.randn(2, 16)
    eot, blanks = torch.tensor([3, 5]), torch.zeros(2, 6, dtype=torch.bool)
    blanks[:, 2] = True
    changed = tokens.clone()
    changed[0, 4:] = torch.randn(2, 16)
    before, after = filler(images, tokens, eot, blanks), filler(images, changed, eot, blanks)
    torch.testing.assert_close(before, after)
    longer = torch.cat([tokens, torch.randn(2, 3, 16)], dim=1)
    more = torch.cat([blanks, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(filler(images, longer, eot, more), before, atol=1e-5, rtol=1e-4)
    changed[0, 3] = torch.randn(16)
    assert not torch.allclose(filler(images, changed, eot, blanks)[0], before[0])
    assert not torch.allclose(filler(images + torch.randn(16), tokens, eot, blanks), before)


# --- losses -----------------------------------------------------------------------------

METHODS = [
    (CLIP, ("itc",)),
    (replace(CLIP, image=ConvConfig(height=32, width=16, channels=(8, 8, 8, 8))), ("itc",)),
    (replace(CLIP, image=TimmConfig(model="resnet18", height=32, width=16)), ("itc",)),
    (IrraConfig(image=VIT, text=TEXT, embed_dim=16, identities=4, fusion_depth=1),
     ("sdm", "id", "mlm")),
    (RdeConfig(image=VIT, text=TEXT, global_dim=16, selected_dim=16, items=4), ("bge", "tse")),
]  # fmt: skip


@pytest.mark.parametrize(("config", "losses"), METHODS, ids=["vit", "conv", "timm", "irra", "rde"])
def test_any_method_trains_with_the_colour_tasks(config, losses):
    method = with_tasks(config, losses=losses)
    result = method(batch_of())
    assert list(result) == [*losses, *COLOR_TASKS]
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in result.values())


@pytest.mark.parametrize(
    ("task", "towers"),
    [("colorize", {"text_tower"}), ("color_words", {"text_tower", "image_tower"})],
)
def test_a_task_trains_the_stated_towers(task, towers):
    method = with_tasks(tasks=(task,))
    method(batch_of())[task].backward()
    trained = {
        name.split(".")[0]
        for name, parameter in method.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert trained == towers | {PART}
    heads = method.get_submodule(PART)
    assert [name for name, p in heads.named_parameters() if p.grad is None] == []


def test_captions_without_a_colour_give_a_loss_of_zero():
    method = with_tasks(tasks=("color_words",))
    loss = method(batch_of(("a man", "a woman")))["color_words"]
    assert loss.item() == 0
    loss.backward()
    grads = [p.grad for p in method.text_tower.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() and not grad.any() for grad in grads)


def test_training_starts_from_grey():
    """The loss of a grey picture is nearly zero; that of a single blue picture falls quickly."""
    method = with_tasks(tasks=("colorize",))
    assert method(batch_of(CAPTIONS[2:3], fill=128))["colorize"] < 0.01
    blue = torch.zeros(1, 3, 32, 16, dtype=torch.uint8)
    blue[:, 2] = 200
    batch = replace(batch_of(CAPTIONS[2:3]), pixels=blue)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(method(batch)["colorize"])
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 0.1
    assert losses[-1] < 0.1 * losses[0]


def test_the_loss_uses_all_captions_of_a_picture():
    method = with_tasks().eval()
    one, both = batch_of(), batch_of(each=2)
    alone = replace(one, pixels=both.pixels.repeat_interleave(2, dim=0))
    for name in COLOR_TASKS:
        torch.testing.assert_close(method(both)[name], method(alone)[name])


def test_the_tasks_can_be_learned():
    """Two pictures of one colour: the caption determines the colour, and the colour the word."""
    method = with_tasks()
    batch = batch_of(("red coat", "blue coat"))
    flat = torch.tensor([[200, 20, 20], [20, 20, 200]], dtype=torch.uint8)
    batch = replace(batch, pixels=flat[..., None, None].expand(2, 3, 32, 16).contiguous())
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        losses = method(batch)
        torch.stack([losses[name] for name in COLOR_TASKS]).sum().backward()
        optimizer.step()
    assert losses["colorize"] < 0.02
    assert losses["color_words"] < 0.1


def test_the_tasks_work_in_half_precision():
    method = with_tasks()
    with torch.autocast("cpu", torch.bfloat16):
        result = method(batch_of())
    assert all(result[name].dtype == torch.float32 for name in COLOR_TASKS)


# --- recipes ----------------------------------------------------------------------------


def test_embeddings_are_those_of_the_method(tiny_recipe):
    losses = {"itc": 1.0, "colorize": 1.0}
    torch.manual_seed(0)
    plain = assemble(replace(tiny_recipe, losses={"itc": 1.0})).eval()
    torch.manual_seed(0)
    taught = assemble(replace(tiny_recipe, losses=losses)).eval()
    batch = batch_of(height=128, width=64)
    with torch.no_grad():
        assert torch.equal(plain.encode_images(batch.pixels), taught.encode_images(batch.pixels))
        texts = (method.encode_texts(batch.ids, batch.eot) for method in (plain, taught))
        assert torch.equal(*texts)
    added = taught.state_dict().keys() - plain.state_dict().keys()
    assert {name.split(".")[0] for name in added} == {PART}
    assert all(name.startswith(f"{PART}.colorizer.") for name in added)


def test_an_unknown_loss_is_refused(tiny_recipe):
    with pytest.raises(RecipeError, match="the recipe asks for colourise"):
        assemble(replace(tiny_recipe, losses={"itc": 1.0, "colourise": 1.0, "colorize": 1.0}))
    with pytest.raises(RecipeError, match="the recipe asks for none"):
        assemble(replace(tiny_recipe, losses={"colorize": 1.0}))


def test_a_text_tower_of_another_kind_is_refused():
    method = CLIP.build()
    method.text_tower = nn.Linear(2, 2)
    with pytest.raises(RecipeError, match=r"colorize read captions by CLIP's.*tower Linear; leave"):
        add_color_tasks(method, ("colorize",))


def test_the_colour_words_depend_on_the_vocabulary():
    small = replace(CLIP, text=replace(TEXT, vocabulary=500))
    with pytest.raises(RecipeError, match="49408 tokens, and the vocabulary has 500"):
        with_tasks(small)
    assert isinstance(with_tasks(small, ("colorize",)), nn.Module)
