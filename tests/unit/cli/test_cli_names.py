"""Errors for wrong names suggest a similar name."""

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
def test_a_wrong_name_gets_a_suggestion(arguments, meant, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


def test_an_unlike_name_gets_no_suggestion(capsys):
    with pytest.raises(SystemExit):
        main(["index", "m.plan", "crops", "--zzzzqqq"])
    assert "Did you mean" not in capsys.readouterr().err


def test_a_missing_recipe_gets_a_suggestion(tmp_path, monkeypatch, capsys):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "irra_cuhk_pedes.py").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "show", "recipes/irra_cuhk_pede.py"]) == 1
    assert "Did you mean 'recipes/irra_cuhk_pedes.py'?" in capsys.readouterr().err
