from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime import InferenceSession

from finegrain.errors import RecipeError
from finegrain.exporters.to_onnx import image_graph_with_tokens, match_graph, text_graph
from finegrain.losses.momentum_contrast import Pair
from finegrain.methods import Batch, RasaConfig
from finegrain.methods import rasa as rasa_module
from finegrain.methods.match_head import Matcher, from_codes, to_codes
from finegrain.methods.rasa import LOSSES, mirror
from finegrain.methods.token_masking import Caption, hide_words, replace_words
from finegrain.models import ConvConfig
from finegrain.models.albef_image import AlbefImageConfig, ConvImageConfig
from finegrain.models.albef_text import BERT_IDS, CLIP_IDS, AlbefTextConfig, SpecialIds

CONFIG = RasaConfig(
    image=AlbefImageConfig(height=32, width=16, patch=8, channels=16, depth=1, heads=2),
    text=AlbefTextConfig(
        vocabulary_file="vocab.txt",
        vocabulary=130,
        context_length=12,
        positions=16,
        channels=16,
        depth=1,
        fusion_depth=2,
        heads=2,
        dropout=0.0,
    ),
    embed_dim=16,
    queue=9,
    ramp=4,
)
N = 4


def built(losses=LOSSES, **changes):
    torch.manual_seed(0)
    return replace(CONFIG, **changes).build(losses)


METHOD = built()
NET = ConvImageConfig(net=ConvConfig(height=32, width=16, channels=(8, 8, 8, 16)))
"""An image tower whose last map has two cells."""


def batch_of(pids=(0, 1, 0, 2), *, captions=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(104, 130, (captions * N, 8), generator=generator, dtype=torch.int32)
    eot = torch.randint(2, 8, (captions * N,), generator=generator, dtype=torch.int32)
    ids[:, 0] = 101
    ids[torch.arange(len(ids)), eot.long()] = 102
    ids[torch.arange(8) > eot[:, None]] = 0
    return Batch(
        pixels=torch.randint(0, 256, (N, 3, 32, 16), generator=generator, dtype=torch.uint8),
        ids=ids,
        eot=eot,
        pids=torch.tensor(pids),
        items=torch.arange(N),
        where=("",) * N,
        replaced=torch.tensor([False, True, False, False]),
    )


@pytest.mark.parametrize("image", [CONFIG.image, NET], ids=["transformer", "net"])
def test_every_parameter_except_the_copies_has_a_gradient(image):
    method = built(image=image)
    losses = method(batch_of())
    assert tuple(losses) == ("cl", "pitm", "prd", "mlm", "mrtd")
    torch.stack(list(losses.values())).sum().backward()
    without = {name for name, p in method.named_parameters() if p.grad is None}
    assert without == {name for name, _ in method.named_parameters() if "_momentum." in name}


def test_fewer_losses_leave_no_parameter_without_a_gradient():
    """With several processes, DDP would wait for such a parameter."""
    method = built(("cl", "pitm"))
    assert not hasattr(method, "prd_head")
    losses = method(replace(batch_of(), replaced=None))
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("losses", [("cl",), ("pitm", "mlm")])
def test_embeddings_and_match_head_are_both_trained(losses):
    with pytest.raises(RecipeError, match=r"expected both among the losses, got"):
        CONFIG.build(losses)


def test_unknown_losses_are_refused():
    with pytest.raises(RecipeError, match="RaSa computes the losses cl, pitm"):
        CONFIG.build(("cl", "pitm", "sdm"))


def test_prd_needs_second_captions():
    with pytest.raises(RecipeError, match=r"set weak_positives above 0, or leave prd out"):
        built()(replace(batch_of(), replaced=None))


def test_three_captions_are_too_many():
    with pytest.raises(RecipeError, match="one or two captions of a picture, got 3"):
        built()(batch_of(captions=3))


def test_a_batch_of_one_person_has_no_negatives():
    losses = built()(batch_of((5, 5, 5, 5)))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_padding_and_the_end_token_are_not_attended():
    """ALBEF was trained without an end token."""
    method, batch = built().eval(), batch_of()
    other = batch.ids.clone()
    other[torch.arange(8) >= batch.eot[:, None]] = 7
    longer = torch.nn.functional.pad(batch.ids, (0, 3))
    with torch.no_grad():
        expected = method.encode_texts(batch.ids, batch.eot)
        for ids in (other, longer):
            torch.testing.assert_close(method.encode_texts(ids, batch.eot), expected)


@torch.no_grad()
def test_matching_one_caption_equals_matching_its_copies():
    """One caption with many pictures gives the same logits as the caption with each picture."""
    method, batch = built().eval(), batch_of(captions=1)
    assert isinstance(method, Matcher)
    tokens = method.match_tokens(batch.pixels)
    assert tokens.shape == (N, 1 + 8, 16)
    ids, eot = batch.ids[2:3], batch.eot[2:3]
    logits, alone = method.match_of(ids, eot, tokens)
    assert (logits.shape, logits.dtype) == ((N,), torch.float32)
    bert, seen = method.text_tower.bert, (torch.arange(8) < eot[:, None]).expand(N, -1)
    scores = method.itm_head(bert.fuse(bert.read(ids.expand(N, -1), seen), seen, tokens)[:, 0])
    torch.testing.assert_close(logits, scores[:, 1] - scores[:, 0])
    torch.testing.assert_close(alone, scores[:, 1])


@pytest.mark.slow
@torch.no_grad()
def test_exported_graphs_have_dynamic_shapes():
    """Any number of pictures, any length, and captions that are shorter than their row."""
    method, batch = built().eval(), batch_of()
    text = InferenceSession(text_graph(method, context_length=12, opset=23))
    (embeddings,) = text.run(None, {"ids": batch.ids.numpy(), "eot": batch.eot.numpy()})
    expected = method.encode_texts(batch.ids, batch.eot).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    match = InferenceSession(match_graph(method, tokens=9, width=16, context_length=12, opset=23))
    codes, scales = to_codes(method.match_tokens(batch.pixels))
    for pictures, row, length in ((4, 0, 8), (1, 1, 8), (3, 2, int(batch.eot[2]) + 1)):
        ids, eot = batch.ids[row : row + 1, :length], batch.eot[row : row + 1]
        tokens = from_codes(codes[:pictures], scales[:pictures])
        given = {"ids": ids, "eot": eot, "codes": codes[:pictures], "scales": scales[:pictures]}
        answers = match.run(
            ["logits", "scores"], {name: value.numpy() for name, value in given.items()}
        )
        for answer, expected in zip(answers, method.match_of(ids, eot, tokens), strict=True):
            np.testing.assert_allclose(answer, expected.numpy(), atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_convolutional_tower_has_tokens_for_matching():
    """The exported tower gives the tokens of the match head and the same embedding."""
    method, batch = built(image=NET).eval(), batch_of(captions=1)
    graph = image_graph_with_tokens(method, height=32, width=16, opset=23)
    result, codes, scales = InferenceSession(graph).run(None, {"pixels": batch.pixels.numpy()})
    embeddings, tokens = method.encode_with_tokens(batch.pixels)
    assert tokens.shape == (N, 1 + 2, 16)
    torch.testing.assert_close(embeddings, method.encode_images(batch.pixels), atol=1e-5, rtol=0)
    np.testing.assert_allclose(result, embeddings, atol=1e-5)
    kept = from_codes(torch.from_numpy(codes), torch.from_numpy(scales))
    expected = from_codes(*to_codes(tokens))
    # Where the graph rounds differently, a code differs by one.
    assert ((kept - expected).abs() <= 1.01 * torch.from_numpy(scales)[..., None]).all()


def test_queues_and_copies_change_after_the_step():
    method, batch = built(), batch_of()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method(batch)
    assert all(torch.equal(before[name], t) for name, t in method.state_dict().items())
    with torch.no_grad():
        method.image_tower.proj.weight += 1
    method.after_step()
    after = method.state_dict()
    assert after["image_queue.ids"].tolist() == [0, 1, 0, 2] + [-100] * 5
    assert int(after["text_queue.pointer"]) == N
    name = "image_momentum.module.proj.weight"
    torch.testing.assert_close(after[name], before[name] + 0.005)


def test_copies_that_differ_are_updated_before_the_first_step():
    """ALBEF's copies differ. In later epochs, they were updated after the last step."""
    method = built()
    with torch.no_grad():
        method.image_tower.proj.weight += 1
    before = method.image_momentum.module.proj.weight.clone()
    method.start_epoch(1, ())
    assert torch.equal(method.image_momentum.module.proj.weight, before)
    method.start_epoch(0, ())
    torch.testing.assert_close(method.image_momentum.module.proj.weight, before + 0.005)


def test_captions_are_padded_to_the_longest_of_their_kind():
    """The end token is replaced by padding, as in the released tokenizer."""
    batch = batch_of()
    own, told = built()._captions(batch)
    for captions, first in ((own, 0), (told, 1)):
        eot, ids = batch.eot[first::2], batch.ids[first::2]
        assert captions.ids.shape[1] == eot.max()
        for row, end in enumerate(eot):
            assert captions.ids[row, :end].tolist() == ids[row, :end].tolist()
            assert not captions.ids[row, end:].any()
            assert captions.seen[row].tolist() == [i < end for i in range(captions.ids.shape[1])]


@pytest.mark.parametrize("axis", ["sequence", "vocabulary"])
def test_a_lookup_of_padding_has_no_gradient(axis):
    """Padding has a gradient only as a word to predict, in the head that shares the embeddings."""
    method = built(distill_axis=axis)
    method.steps_done.fill_(10)
    shared = method.text_tower.bert.words.weight
    method.text_tower.words = lambda fused: method.text_tower.word_head(fused, shared.detach())
    method(batch_of())["mlm"].backward()
    assert not shared.grad[0].any()
    assert shared.grad[101].any()


def test_the_weight_of_the_momentum_model_grows():
    method = built()
    shares = []
    for _ in range(6):
        shares.append(float(method._softness))
        method.after_step()
    assert shares == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])


def test_a_queue_row_of_the_same_person_is_not_a_negative(monkeypatch):
    method, batch = built(), batch_of()
    seen = {}
    contrast = rasa_module.momentum_contrast

    def spy(queries, guesses, keys, same, scale, *, softness):
        seen["same"] = same
        return contrast(queries, guesses, keys, same, scale, softness=softness)

    monkeypatch.setattr(rasa_module, "momentum_contrast", spy)
    method(batch)
    method.after_step()
    method(batch)
    pids = [0, 1, 0, 2]
    known = [*pids, *pids, *[-100] * 5]
    expected = [[float(one == other) for other in known] for one in pids]
    assert seen["same"].tolist() == expected


def test_search_needs_only_the_towers(monkeypatch):
    """It needs no copies, no queues and not the upper half of BERT."""
    method, batch = built().eval(), batch_of()
    for part in ("image_momentum", "text_momentum", "image_queue", "text_queue", "itm_head"):
        delattr(method, part)
    del method.text_tower.bert.layers[1:]
    assert method.encode_images(batch.pixels).shape == (N, 16)
    assert method.encode_texts(batch.ids, batch.eot).shape == (2 * N, 16)


@settings(deadline=None, max_examples=30)
@given(pids=st.lists(st.integers(0, 3), min_size=1, max_size=7), seed=st.integers(0, 99))
def test_negatives_are_of_other_people(pids, seed):
    """Each caption and each picture has one, unless all are of one person."""
    torch.manual_seed(seed)
    features = [Pair(torch.randn(len(pids), 3), torch.randn(len(pids), 3)) for _ in range(2)]
    people = torch.tensor(pids)
    captions, pictures = METHOD._wrong_pairs(*features, people)
    assert (people[captions] != people[pictures]).all()
    rows = [i for i, one in enumerate(pids) if any(one != other for other in pids)]
    assert captions[: len(rows)].tolist() == pictures[len(rows) :].tolist() == rows


def drawn_captions(special, n=60, length=40):
    ids = torch.arange(200, 200 + length).repeat(n, 1).int()
    ids[:, 0] = special.start
    return Caption(ids, torch.arange(length) < torch.arange(n)[:, None] + 1)


@pytest.mark.parametrize("special", [BERT_IDS, CLIP_IDS])
def test_words_are_masked_with_the_stated_probabilities(special):
    torch.manual_seed(0)
    caption = drawn_captions(special)
    hidden = hide_words(caption, rate=0.3, special=special, vocabulary=1000)
    words = caption.seen.clone()
    words[:, 0] = False
    assert not (hidden.at & ~words).any()
    assert torch.equal(hidden.ids[~hidden.at], caption.ids[~hidden.at])
    became, count = hidden.ids[hidden.at], int(words.sum())
    assert hidden.at.sum().item() / count == pytest.approx(0.3, abs=0.04)
    assert (became == special.hidden).float().mean().item() == pytest.approx(0.8, abs=0.06)
    assert (became == caption.ids[hidden.at]).float().mean().item() == pytest.approx(0.1, abs=0.05)
    assert became[became != special.hidden].max() < 1000


def test_replaced_words_are_drawn_by_their_probability():
    torch.manual_seed(0)
    special = SpecialIds(start=1, hidden=2, pad=0)
    ids = torch.tensor([[1, 5, 5, 5, 0]]).repeat(3000, 1)
    seen = ids > 0
    logits = torch.tensor([0.1, 0.1, 0, 0, 0, 0.5, 0.3]).log().expand(3000, 5, 7)
    drawn = replace_words(logits, Caption(ids, seen), special=special)
    assert (drawn.ids[:, 0] == 1).all()
    assert torch.equal(drawn.ids[:, 4], ids[:, 4])
    assert not drawn.at[:, [0, 4]].any()
    words = drawn.ids[:, 1:4]
    assert torch.equal(drawn.at[:, 1:4], words > 1), "padding and starts that were drawn"
    assert (words == 6).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_the_mirrored_view_does_not_depend_on_the_first():
    torch.manual_seed(0)
    pixels = torch.arange(400).view(400, 1, 1, 1) * 2 + torch.tensor([0, 1])
    seen = mirror(pixels)
    flipped = (seen != pixels).flatten(1).any(dim=1)
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(seen[flipped], pixels[flipped].flip(3))


def test_without_a_vocabulary_the_tokens_are_those_of_clip():
    config = AlbefTextConfig(vocabulary=49408, context_length=20)
    assert config.tokenizer().start_id == config.special.start
    with pytest.raises(RecipeError, match=r"the words are CLIP's 49408.* has 30522"):
        AlbefTextConfig()


def test_inconsistent_sizes_are_refused():
    with pytest.raises(RecipeError, match="up to 51 tokens and there are 50"):
        AlbefTextConfig(vocabulary=49408, positions=50)
    with pytest.raises(RecipeError, match="fusion_depth of 1 or more"):
        AlbefTextConfig(vocabulary=49408, fusion_depth=0)
    with pytest.raises(RecipeError, match="40x16 does not divide into patches of 16"):
        AlbefImageConfig(height=40, width=16)


def test_parameter_counts_equal_those_of_the_released_model():
    """It has 86,090,496 in the transformer of pictures and 123,697,722 in BERT."""
    text = AlbefTextConfig(vocabulary_file="vocab.txt")
    with torch.device("meta"):
        method = RasaConfig(text=text, queue=2).build()
    trained = {n: p.numel() for n, p in method.named_parameters() if p.requires_grad}
    of_bert = ("text_tower.bert.", "text_tower.word_head.")
    assert sum(n for name, n in trained.items() if name.startswith("image_tower.vit.")) == 86090496
    assert sum(n for name, n in trained.items() if name.startswith(of_bert)) == 123697722
    projections, heads, temperature = 2 * (768 * 256 + 256), 3 * (768 * 2 + 2), 1
    rest = projections + heads + temperature
    assert sum(trained.values()) == 86090496 + 123697722 + rest
