from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.data.datasets import Catalog, CuhkPedes, LabelledPhotos, SyntheticPeople
from finegrain.errors import RecipeError
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, TimmConfig, VitConfig
from finegrain.preprocess.cleaning import CLIP_CLEANING
from finegrain.recipe import (
    Augment,
    Expected,
    Optimizer,
    Recipe,
    Schedule,
    difference,
    load_recipe,
    override,
    recipe_from_dict,
)

RECIPE = Recipe(
    name="plain",
    about="for tests",
    data=CuhkPedes(),
    method=ClipConfig(image=VitConfig(), text=TextConfig()),
)

shares = st.floats(0, 1)
betas = st.floats(0, 0.999)
words = st.text(max_size=20)
whole = st.integers(0, 2**63 - 1)
sides = st.integers(1, 1 << 14)
recipes = st.builds(
    Recipe,
    name=words,
    about=words,
    data=st.one_of(
        st.builds(CuhkPedes, root=words),
        st.builds(SyntheticPeople, root=words, train=st.integers(1, 99), seed=whole),
        st.builds(
            Catalog,
            table=words,
            caption_columns=st.lists(words, max_size=3).map(tuple),
            pid_column=st.none() | words,
        ),
        st.builds(LabelledPhotos, root=words),
    ),
    method=st.builds(
        ClipConfig,
        image=st.one_of(
            st.builds(VitConfig, depth=st.integers(1, 30), activation=st.just("gelu")),
            st.builds(TimmConfig, model=words, height=sides, width=sides),
        ),
        text=st.builds(TextConfig, channels=sides),
        temperature=st.floats(1e-3, 1),
    ),
    weights=st.none() | words,
    losses=st.dictionaries(words, st.floats(0.01, 10), min_size=1, max_size=3),
    augment=st.builds(Augment, flip=shares, erase=shares),
    optimizer=st.builds(Optimizer, lr=shares, betas=st.tuples(betas, betas)),
    schedule=st.builds(Schedule, epochs=st.integers(1, 9), steps=st.none() | st.integers(1, 9)),
    batch_size=st.integers(1, 99).map(lambda n: 4 * n),
    accumulate=st.sampled_from([1, 2, 4]),
    fit=st.sampled_from(["stretch", "pad"]),
    precision=st.sampled_from(["auto", "fp32", "bf16"]),
    expected=st.none() | st.builds(Expected, rank1=shares, mAP=st.none() | shares, source=words),
)


@settings(deadline=None, max_examples=60)
@given(recipe=recipes)
def test_recipes_are_equal_after_a_round_trip_through_json(recipe):
    back = recipe_from_dict(json.loads(recipe.to_json()), "the test")
    assert back == recipe
    assert difference(back, recipe) == {}


def test_recipes_are_frozen():
    with pytest.raises(FrozenInstanceError):
        RECIPE.seed = 3


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("seed=7", {"seed": (0, 7)}),
        (" optimizer.lr = 3e-4 ", {"optimizer.lr": (1e-4, 3e-4)}),
        ("optimizer.lr=1", {"optimizer.lr": (1e-4, 1.0)}),
        ("schedule.steps=5", {"schedule.steps": (None, 5)}),
        ("weights=clip/ViT-B-16.pt", {"weights": (None, "clip/ViT-B-16.pt")}),
        ("weights=a=b", {"weights": (None, "a=b")}),
        ("method.image.height=224", {"method.image.height": (384, 224)}),
        ("losses.itc=0.5", {"losses.itc": (1.0, 0.5)}),
        ('losses={"itc": 1.0, "sdm": 2}', {"losses.sdm": (None, 2.0)}),
        ("optimizer.betas=[0.9, 0.999]", {"optimizer.betas": ((0.9, 0.98), (0.9, 0.999))}),
        ('name="7"', {"name": ("plain", "7")}),
        ("precision=bf16", {"precision": ("auto", "bf16")}),
    ],
)
def test_overrides_set_fields(text, changed):
    assert difference(RECIPE, override(RECIPE, [text])) == changed


def test_overrides_change_the_copy_only_and_the_last_one_counts():
    copy = override(RECIPE, ["seed=1", "losses.itc=2", "seed=2"])
    assert (copy.seed, copy.losses) == (2, {"itc": 2.0})
    assert (RECIPE.seed, RECIPE.losses) == (0, {"itc": 1.0})


def test_fields_of_a_type_that_is_only_named_are_shown_in_one_value():
    advice = """--set data='{"type": "Catalog", "table": "shop.csv"}'"""
    with pytest.raises(RecipeError, match=re.escape(advice)):
        override(RECIPE, ["data=Catalog", "data.table=shop.csv"])


def test_nested_fields_of_such_a_type_are_nested_in_the_value():
    advice = """--set data='{"type": "Catalog", "shares": {"train": 0.5}}'"""
    with pytest.raises(RecipeError, match=re.escape(advice)):
        override(RECIPE, ["data=Catalog", "data.shares.train=0.5"])


def test_override_replaces_a_union_completely():
    tower = {"type": "TimmConfig", "model": "resnet10t", "height": 64, "width": 32}
    copy = override(RECIPE, [f"method.image={json.dumps(tower)}"])
    assert copy.method.image == TimmConfig(model="resnet10t", height=64, width=32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "expected an override such as optimizer.lr=3e-4, got 'seed'"),
        ("sead=1", "--set sead=1: no such field; there are about, accumulate"),
        (
            "optimizer.lrr=1",
            "there are betas, clip_norm, decay_vectors, eps, eps_uncorrected, kind, lr, rules",
        ),
        ("optimizer.lr.x=1", "no such field"),
        ("nothing.lr=1", "no such field; there are about"),
        ("losses.sdm=1", "no such field; there are itc"),
        ("=1", "no such field"),
        ("seed=1.5", "expected int, got 1.5 @ recipe.seed"),
        ("seed=true", "expected int, got True @ recipe.seed"),
        ("seed=one", "expected int, got 'one' @ recipe.seed"),
        ("optimizer.lr=fast", "expected float, got 'fast' @ recipe.optimizer.lr"),
        ("optimizer.lr=null", "expected float, got None @ recipe.optimizer.lr"),
        ("optimizer.lr=NaN", "expected a finite number, got nan @ recipe.optimizer.lr"),
        ("optimizer.clip_norm=1e999", "expected a finite number, got inf"),
        (f"seed={2**63}", "at most 64 bits, got 9223372036854775808 @ recipe.seed"),
        ("data=Catalog", """such as {"type": "Catalog", ...}, got 'Catalog' @ recipe.data"""),
        ("optimizer.lr=-1", "expected optimizer.lr from 0 to 1000, got -1.0"),
        ("optimizer.betas=[0.9, 1]", r"expected optimizer.betas\[1\] from 0 to 1, got 1.0"),
        ("schedule.epochs=-3", "expected schedule.epochs of at least 0, got -3"),
        ("schedule.warmup=5", "expected schedule.warmup from 0 to 1, got 5.0"),
        ("schedule.evaluate_every=0", "expected schedule.evaluate_every of at least 1, got 0"),
        ("schedule.patience=0", "expected schedule.patience of at least 1, got 0"),
        ("augment.flip=7", "expected augment.flip from 0 to 1, got 7.0"),
        ('lora={"rank": 0}', "expected lora.rank of at least 1, got 0"),
        ("caption_noise=5", "expected caption_noise from 0 to 1, got 5.0"),
        ("seed=-1", "expected seed of at least 0, got -1"),
        ("workers=-1", "expected workers from 0 to 1024, got -1"),
        ("workers=100000", "expected workers from 0 to 1024, got 100000"),
        ("name=5", "expected str, got 5 @ recipe.name"),
        (
            "precision=fp8",
            "'auto' or 'fp32' or 'bf16', got 'fp8'",
        ),
        ("fit=cut", "expected 'stretch' or 'pad' or 'crop', got 'cut'.* @ recipe.fit"),
        ("interpolation=area", "'bilinear' or 'bicubic', got 'area' @ recipe.interpolation"),
        ("optimizer=3", "with the fields kind, lr, .* got 3 @ recipe.optimizer"),
        ("optimizer.betas=[0.9]", r"a list of 2 values .* got \[0.9\] @ recipe.optimizer.betas"),
        ("frozen=text_tower.*", r"a list such as \[\"a\"\], got 'text_tower.\*' @ recipe.frozen"),
        ("losses={}", "expected losses with a weight above 0"),
        ("losses.itc=-1", "expected losses.itc of at least 0, got -1.0"),
        ("schedule.steps=0", "expected schedule.steps of at least 1, got 0"),
        ("schedule.epochs=1000000000000", "expected schedule.epochs of at most 1,000,000,000"),
        ("method.temperature=0", "expected method.temperature from 1e-06 to 1000, got 0.0"),
        ("method.image.channels=0", "expected method.image.channels of at least 1, got 0"),
        ("method.image.depth=0", "expected method.image.depth from 1 to 1024, got 0"),
        ("losses=[]", "expected a mapping @ recipe.losses"),
        ("expected={}", "missing @ recipe.expected.rank1"),
        (
            "method.image.type=Vit",
            "TimmConfig or SiglipVitConfig, got 'Vit' @ recipe.method.image",
        ),
        (
            "method.image=5",
            "TimmConfig or SiglipVitConfig, got 5 @ recipe.method.image",
        ),
        ("data.type=Market", "SyntheticPeople or .*, got 'Market' @ recipe.data"),
        ("accumulate=3", "batch_size to be a multiple of accumulate, got 64 and 3"),
        ("batch_size=0", "expected batch_size of at least 1, got 0"),
        ("batch_size=-4", "expected batch_size of at least 1, got -4"),
        ("accumulate=0", "expected accumulate of at least 1, got 0"),
        ("weak_positives=1.5", "expected weak_positives from 0 to 1, got 1.5"),
    ],
)
def test_invalid_overrides_are_refused(text, message):
    with pytest.raises(RecipeError, match=message):
        override(RECIPE, [text])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(sead=3), r"extra fields found \(sead\) @ recipe"),
        (lambda r: r["optimizer"].update(lrr=3), r"\(lrr\) @ recipe.optimizer"),
        (lambda r: r.pop("name"), "required field missing @ recipe.name"),
        (lambda r: r["data"].pop("type"), "type SyntheticPeople or "),
        (lambda r: r.update(data=[]), r"got \[\] @ recipe.data"),
    ],
)
def test_a_dict_that_is_not_a_recipe_is_refused(change, message):
    resolved = RECIPE.to_dict()
    change(resolved)
    with pytest.raises(RecipeError, match=f"the file is wrong: .*{message}"):
        recipe_from_dict(resolved, "the file")


def test_the_difference_names_fields_of_one_recipe_only():
    other = replace(RECIPE, data=SyntheticPeople(root=RECIPE.data.root))
    changed = difference(RECIPE, other)
    assert changed["data.type"] == ("CuhkPedes", "SyntheticPeople")
    assert changed["data.train"] == (None, 2000)
    assert "data.root" not in changed


def test_tiny_is_small_and_keeps_losses_and_method():
    parent = replace(
        RECIPE, losses={"itc": 0.5}, weights="clip.pt", batch_size=64, accumulate=4, workers=8
    )
    tiny = parent.tiny()
    assert (tiny.name, tiny.losses, tiny.accumulate) == ("plain_tiny", {"itc": 0.5}, 4)
    assert (tiny.weights, tiny.workers, tiny.batch_size) == (None, 0, 32)
    assert isinstance(tiny.data, SyntheticPeople)
    assert tiny.schedule.steps == 10
    assert sum(p.numel() for p in tiny.method.build().parameters()) < 3_000_000
    assert recipe_from_dict(tiny.to_dict(), "tiny") == tiny


def python(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


def test_a_python_recipe_is_loaded_with_overrides(tmp_path):
    path = python(
        tmp_path,
        "from finegrain.recipe import recipe_from_dict\n"
        f"def recipe():\n    return recipe_from_dict({RECIPE.to_dict()!r}, 'x')\n",
    )
    assert load_recipe(path) == RECIPE
    assert load_recipe(str(path), ["seed=4"]) == replace(RECIPE, seed=4)


def test_json_and_run_folders_are_loaded(tmp_path):
    (tmp_path / "recipe.json").write_text(RECIPE.to_json())
    assert load_recipe(tmp_path / "recipe.json") == RECIPE
    assert load_recipe(tmp_path) == RECIPE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "must define `def recipe.* got NoneType"),
        ("recipe = 5\n", "must define `def recipe.* got NoneType"),
        ("def recipe():\n    return {}\n", "must define `def recipe.* got dict"),
        ("def recipe(:\n", r"mine\.py is not Python: .*line 1"),
    ],
)
def test_a_python_file_without_a_recipe_is_refused(text, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        load_recipe(python(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "expected an object, got \\[\\]"),
        (b"null", "expected an object, got None"),
        (b"{}", "required field missing @ recipe.name"),
    ],
)
def test_a_json_file_that_is_not_a_recipe_is_refused(content, message, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


@pytest.mark.parametrize("name", ["absent.py", "absent.json", "."])
def test_a_missing_recipe_is_an_error(name, tmp_path):
    with pytest.raises(RecipeError, match=r"there is no recipe at .*finegrain recipe list"):
        load_recipe(tmp_path / name)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[3].glob("recipes/*.py")), ids=lambda path: path.stem
)
def test_recipes_of_this_checkout_load_and_shrink(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe_from_dict(json.loads(recipe.tiny().to_json()), "tiny") == recipe.tiny()


def test_a_weak_positive_is_the_second_of_two_captions():
    with pytest.raises(RecipeError, match=r"weak_positives .* not go with captions 2; set one"):
        replace(RECIPE, captions=2, weak_positives=0.1)


def test_accumulation_needs_full_batches():
    with pytest.raises(RecipeError, match="accumulate 4 divides full batches; set drop_last=true"):
        override(RECIPE, ["accumulate=4", "drop_last=false"])


@pytest.mark.parametrize(
    ("override_text", "question"),
    [
        ("optimiser.lr=1", "Did you mean 'optimizer'?"),
        ("optimizer.weigth_decay=1", "Did you mean 'weight_decay'?"),
        ('data={"type": "Catalogue"}', "Did you mean 'Catalog'?"),
        ('data={"type": "Catalog", "tabel": "x.csv"}', "Did you mean 'table'?"),
        ("data=my.csv", '{"type": "Catalog", "table": "catalog.csv"}'),
    ],
)
def test_a_wrong_name_gets_a_suggestion(override_text, question):
    with pytest.raises(RecipeError) as raised:
        override(RECIPE, [override_text])
    assert question in str(raised.value)


def test_a_recipe_of_the_first_release_keeps_its_preprocessing(tiny_recipe):
    """Its JSON states no interpolation and no cleaning."""
    stated = tiny_recipe.to_dict()
    for name in ("interpolation", "antialias"):
        del stated[name]
    del stated["augment"]["interpolation"], stated["schedule"]["from_initial"]
    del stated["method"]["text"]["cleaning"]
    recipe = recipe_from_dict(stated, "recipe.json")
    assert (recipe.interpolation, recipe.antialias) == ("bilinear", True)
    assert recipe.augment.interpolation is None
    assert not recipe.schedule.from_initial
    assert recipe.method.text.cleaning == CLIP_CLEANING
