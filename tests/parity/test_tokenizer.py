"""CLIP's tokenizer compared with its reference implementation, on 10,000 captions."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.preprocess.text import Tokenizer

open_clip_tokenizer = pytest.importorskip("open_clip.tokenizer")

CAPTIONS = """
a the woman man in with red navy-blue coat T-shirt backpack sneakers isn't she's they're we've
I'm you'll he'd O'Neil 3/4 2024 size:XL #1 10% e-mail ... !? -- _ \\ ' &amp; &lt;b&gt; &#233;
&amp;eacute; Ã© â€œquotedâ€ “curly” don’t café naïve Straße ΣΊΣΥΦΟΣ İstanbul ﬁligree
女人 穿着 红色 外套 ワンピース платье فستان שמלה कपड़े เสื้อ 여자 váy 1️⃣ ½ Ⅷ ²
</w> <|endoftext|> <|startoftext|>
"""
WORDS = CAPTIONS.split()
EMOJI = ("👩🏽‍🦰", "👨‍👩‍👧", "🏳️‍🌈", "👗", "🧥", "❤️", "🇫🇷", "\u200d", "\ufe0f")
BLANKS = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\x1c", "\x85", "")
BLOCKS = (
    (0x00, 0x250), (0x300, 0x400), (0x400, 0x530), (0x530, 0x700), (0x900, 0xE00), (0xE00, 0x1100),
    (0x1E00, 0x2000), (0x2000, 0x2C00), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0xA640, 0xA830),
    (0xAC00, 0xD7A3), (0xFB00, 0xFFFE), (0x10000, 0x11FFF), (0x16000, 0x20000), (0x1F000, 0x1FB00),
)  # fmt: skip


def natural(rng: random.Random) -> str:
    return rng.choice(BLANKS[:6]).join(rng.choices(WORDS, k=rng.randrange(1, 30)))


def any_characters(rng: random.Random) -> str:
    points = [rng.randrange(sys.maxunicode + 1) for _ in range(rng.randrange(12))]
    return "".join(chr(point) for point in points)  # including lone surrogates


def one_script(rng: random.Random) -> str:
    first, last = rng.choice(BLOCKS)
    return "".join(chr(rng.randrange(first, last)) for _ in range(rng.randrange(1, 25)))


def glued(rng: random.Random) -> str:
    parts = [rng.choice(pool) for pool in rng.choices((WORDS, EMOJI, BLANKS), k=12)]
    marks = [chr(rng.choice((0x301, 0x345, 0x17F, 0x27, 0x30))) for _ in parts]
    return "".join(x for pair in zip(parts, marks, strict=True) for x in pair)


def very_long(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(100, 400)))


def corpus() -> list[str]:
    rng = random.Random(20240229)
    kinds = rng.choices(
        (natural, any_characters, one_script, glued, very_long), (40, 20, 20, 18, 1), k=9_990
    )
    edges = [
        "",
        " ",
        "\n\t \u3000",
        "'",
        "'ſ 'S 'RE",
        "\u0345",
        "aͅb",
        "a" * 3_000,
        "!" * 900,
        "\x00",
    ]
    return edges + [kind(rng) for kind in kinds]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return clip_tokenizer()


def assert_same_ids(tokenizer: Tokenizer, captions: list[str]) -> None:
    expected = open_clip_tokenizer.SimpleTokenizer()(captions).numpy()
    got = tokenizer.encode(captions, pad_to=77)
    wrong = np.flatnonzero((got.ids != expected).any(axis=1))
    assert not wrong.size, [captions[i] for i in wrong[:5]]
    np.testing.assert_array_equal(got.eot, expected.argmax(axis=1))


def test_ids_equal_open_clip(tokenizer):
    captions = corpus()
    assert len(captions) == 10_000
    assert_same_ids(tokenizer, captions)


def test_every_character_has_the_class_of_open_clip(tokenizer):
    # Between a letter, a symbol and a digit, the ids depend on the class of a character.
    characters = [chr(point) for point in range(sys.maxunicode + 1) if not point % 211]
    oddities = [chr(point) for point in (0x17F, 0x345, 0x1E9E, 0x2126, 0x212A, 0xFB06, 0x3D000)]
    assert_same_ids(tokenizer, [f"x{c}x ({c}) 1{c}1 '{c}" for c in characters + oddities])


def test_a_saved_tokenizer_has_the_same_ids(tokenizer):
    captions = corpus()[:2_000]
    again = Tokenizer.from_json(tokenizer.to_json().encode(), context_length=77)
    np.testing.assert_array_equal(again.encode(captions).ids, tokenizer.encode(captions).ids)


def test_a_copy_of_the_vocabulary_gives_the_same_tokenizer(tokenizer):
    file = Path(open_clip_tokenizer.default_bpe())
    assert clip_tokenizer(vocabulary=file).to_json() == tokenizer.to_json()


@pytest.mark.parametrize("text", ["a <end_of_text> b", "<START_OF_TEXT>", "&lt;end_of_text&gt;"])
def test_special_tokens_in_a_text_are_text_unlike_in_open_clip(tokenizer, text):
    reference = open_clip_tokenizer.SimpleTokenizer().encode(text)
    assert {49406, 49407} & set(reference)
    batch = tokenizer.encode([text])
    ids = batch.ids[0]
    assert not {49406, 49407} & set(ids[1:-1].tolist())
    assert (ids[0], ids[-1], batch.eot[0]) == (49406, 49407, len(ids) - 1)
