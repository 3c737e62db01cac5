"""Identities are reproducible and all different, and swap partners differ in two colours."""

from dataclasses import asdict

import pytest

from finegrain.errors import DataError
from finegrain.synthetic import CAMERAS, identities, view_of
from finegrain.synthetic.palette import COLORS
from finegrain.synthetic.person import COLOR_FIELDS


def test_twenty_thousand_people_all_look_different():
    people = identities(20_000)

    assert len({identity.person.looks for identity in people}) == 20_000
    assert [identity.pid for identity in people] == list(range(1, 20_001))
    assert 0.17 < sum(identity.swap is not None for identity in people) / 20_000 < 0.23


def test_population_depends_on_the_seed_only_and_grows_by_appending():
    assert identities(60, seed=3) == identities(60, seed=3)
    assert identities(60, seed=3) == identities(100, seed=3)[:60]
    assert identities(60, seed=3) != identities(60, seed=4)


def test_every_color_of_an_upper_garment_is_common():
    worn = [identity.person.upper_color for identity in identities(2000)]

    assert set(worn) == set(COLORS)
    assert min(worn.count(color) for color in COLORS) > 60


def test_swap_partners_differ_in_the_two_colors_only():
    people = {identity.pid: identity for identity in identities(500)}
    pairs = [identity for identity in people.values() if identity.swap is not None]
    assert len(pairs) > 60
    for identity in pairs:
        assert identity.swap_pid is not None
        partner = people[identity.swap_pid]
        assert partner.swap_pid == identity.pid
        assert abs(partner.pid - identity.pid) == 1
        first, second = identity.swap
        assert identity.person.color(first) == partner.person.color(second)
        assert identity.person.color(second) == partner.person.color(first)
        assert identity.person.color(first) != identity.person.color(second)
        mine, theirs = asdict(identity.person), asdict(partner.person)
        differing = {name for name in mine if mine[name] != theirs[name]}
        assert differing == {COLOR_FIELDS[first], COLOR_FIELDS[second]}


def test_a_partner_beyond_the_count_leaves_an_ordinary_identity():
    people = identities(400)
    first_half = next(i for i in people if i.swap_pid == i.pid + 1)

    last = identities(first_half.pid)[-1]

    assert last.swap is None
    assert last.swap_pid is None
    assert last.person == first_half.person


def test_attributes_agree_with_each_other():
    for identity in identities(800):
        result = identity.person.attributes()
        assert (result["lower"] is None) == (result["upper"] == "dress")
        assert (result["lower"] is None) == (result["lower_color"] is None)
        assert (result["bag"] is None) == (result["bag_color"] is None)
        assert (result["hat"] is None) == (result["hat_color"] is None)
        assert result["umbrella"] == (result["umbrella_color"] is not None)
        assert (result["upper_pattern"] == "plain") == (result["upper_second_color"] is None)
        if result["upper"] == "coat":
            assert result["lower"] != "shorts"
            assert result["lower"] != "skirt" or result["hem"] == "long"
        if result["lower"] == "jeans":
            assert result["lower_color"] in ("blue", "black", "grey")


def test_views_change_cameras_and_are_reproducible():
    for identity in identities(20):
        views = [view_of(identity, picture) for picture in range(len(CAMERAS))]
        assert {view.camera.name for view in views} == {camera.name for camera in CAMERAS}
        assert views[2] == view_of(identity, 2)
        assert views[2] != view_of(identity, 2, seed=1)


def test_shoes_that_were_exchanged_are_always_in_view():
    swapped = [i for i in identities(3000) if i.swap is not None and "shoes" in i.swap]

    assert swapped
    assert all(view_of(i, picture).shows_shoes for i in swapped for picture in range(6))


def test_a_count_of_zero_is_refused():
    with pytest.raises(DataError, match="at least 1, got 0"):
        identities(0)
