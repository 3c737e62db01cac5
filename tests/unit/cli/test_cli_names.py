"""Wrong names on the command line are answered with a question."""

from __future__ import annotations

import pytest

from finegrain.cli.parser import main


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["index", "m.plan", "crops", "--imge-column", "a"], "--image-column"),
        (["query", "m.plan", "coat", "--group_by", "pid"], "--group-by"),
        (["indx", "m.plan", "crops"], "index"),
        (["recipe", "lst"], "list"),
    ],
)
def test_a_wrong_name_asks_whether_another_was_meant(arguments, meant, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


def test_a_name_like_no_other_is_only_refused(capsys):
    with pytest.raises(SystemExit):
        main(["index", "m.plan", "crops", "--zzzzqqq"])
    assert "Did you mean" not in capsys.readouterr().err


def test_a_recipe_that_is_not_there_asks_for_one_that_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "irra_cuhk_pedes.py").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "show", "recipes/irra_cuhk_pede.py"]) == 1
    assert "Did you mean 'recipes/irra_cuhk_pedes.py'?" in capsys.readouterr().err
