from __future__ import annotations

import os
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


FISH = """
source {script}
complete -C "{line}"
"""
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f
zpty -w shell 'PS1="" PS2="" COLUMNS=200 LINES=200; cd {folder}; fpath=({scripts} $fpath)'
zpty -w shell 'autoload -Uz compinit; compinit -u -d {folder}/.zcompdump'
zpty -w shell 'zstyle ":completion:*" format ""; zstyle ":completion:*" menu no; print READY'
zpty -r shell text '*READY*READY*'
zpty -w -n shell $'{line}\\t\\t'
text=''
for ((i = 0; i < 300; i++)) {{
  zpty -rt shell part && text+=$part
  [[ $text == *{last}* ]] && break
  sleep 0.1
}}
print -r -- $text
"""
"""Runs an interactive zsh in its own terminal, and presses the tab key twice.

It waits until the last expected name is shown, because this takes seconds on a busy machine.
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """A folder with the script of each shell, under the name that the shell expects."""
    folder = tmp_path_factory.mktemp("completion")
    names = {"bash": "finegrain.bash", "zsh": "_finegrain", "fish": "finegrain.fish"}
    for shell, name in names.items():
        with pytest.MonkeyPatch.context() as patch:
            lines = []
            patch.setattr("builtins.print", lambda text, lines=lines, **_: lines.append(text))
            assert main(["completion", shell]) == 0
        (folder / name).write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def script(scripts):
    return scripts / "finegrain.bash"


def offered(shell, scripts, folder, line, last):
    """Completions of a shell for the last word of a line."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    if shell == "bash":
        return completed(scripts / "finegrain.bash", folder, *line.split(" ")[1:])
    template = FISH if shell == "fish" else ZSH
    text = template.format(
        script=scripts / "finegrain.fish", scripts=scripts, folder=folder, line=line, last=last
    )
    home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "TERM": "dumb"}
    done = subprocess.run(
        [shell, "-c", text], cwd=folder, env=os.environ | home, capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("finegrain que", {"query"}),
        ("finegrain train irra_", {"irra_cuhk_pedes", "irra_synthetic"}),
        ("finegrain recipe show rde_", {"rde_rstpreid", "rde_synthetic"}),
        ("finegrain export run cpu_i", {"cpu_int8"}),
        ("finegrain pull clip-b16-", {"clip-b16-datacomp", "clip-b16-dfn"}),
        ("finegrain pull x --profile cpu_i", {"cpu_int8"}),
        ("finegrain evaluate model.plan --data f", {"flickr30k"}),
        ("finegrain query model.plan --runtime openv", {"openvino"}),
        ("finegrain train my_", {"my_recipe.py"}),
    ],
)
def test_each_shell_completes_names(shell, line, names, scripts, tmp_path):
    (tmp_path / "my_recipe.py").touch()
    (tmp_path / "my_notes.txt").touch()
    shown = offered(shell, scripts, tmp_path, line, max(names))
    assert all(any(name in word for word in shown) for name in names), shown


def completed(script, folder, *words):
    """Completions of bash for the last of these words."""
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


def test_without_the_packages_for_training_there_are_no_recipes_to_complete(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "finegrain.recipe.named_file", None)
    assert main(["completion", "fish"]) == 0
    script = capsys.readouterr().out
    assert "clip-vit-b16" in script
    assert "irra_cuhk_pedes" not in script


def test_an_unknown_shell_or_a_missing_library_is_an_error(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main(["completion", "bsh"])
    assert "Did you mean 'bash'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "finegrain[terminal]" in capsys.readouterr().err
