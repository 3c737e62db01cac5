from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from finegrain.cli.completion import SHELLS
from finegrain.cli.parser import main

COMPLETE = """
source {script}
COMP_WORDS=({words}"")
COMP_CWORD={count}
_shtab_finegrain
printf "%s\\n" "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "finegrain.bash"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda text, **_: lines.append(text))
        assert main(["completion", "bash"]) == 0
    path.write_text("\n".join(lines))
    return path


def completed(script, folder, *words):
    """What bash offers after these words; the last one is unfinished."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    *before, last = words
    text = COMPLETE.format(
        script=script, words="".join(f"{w} " for w in ("finegrain", *before)), count=len(words)
    ).replace('"")', f'"{last}")')
    done = subprocess.run(
        ["bash", "-c", text], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_bash_completes_verbs_options_choices_and_files(script, tmp_path):
    (tmp_path / "model.plan").touch()
    assert completed(script, tmp_path, "que") == ["query"]
    assert "--where" in completed(script, tmp_path, "query", "--wh")
    assert completed(script, tmp_path, "query", "model.plan", "--pictures", "al") == ["always"]
    assert completed(script, tmp_path, "recipe", "li") == ["list"]
    assert completed(script, tmp_path, "query", "mod") == ["model.plan"]
    assert completed(script, tmp_path, "gallery", "mov") == ["move"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("finegrain", "query", "group-by", "always"):
        assert word in script
    if (path := shutil.which(shell)) is not None:
        subprocess.run([path, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_and_a_missing_library(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main(["completion", "bsh"])
    assert "Did you mean 'bash'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "finegrain[terminal]" in capsys.readouterr().err
