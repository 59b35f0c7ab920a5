"""How bash, zsh and fish ask for completions and get them; click's ways, and what models need besides.

A model may be FILE:NAME, and after a folder no blank follows. bash breaks words at colons, so its script sends the line
as typed, and gets only what comes after the last colon. Items are lines (bash, fish) or three lines (zsh).
"""

from __future__ import annotations

import os
import shlex
from typing import ClassVar

from click.shell_completion import CompletionItem, FishComplete, ShellComplete, ZshComplete, add_completion_class

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response line kind value
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    for line in $response; do
        kind=${line%%%%,*}
        value=${line#*,}
        [[ $value == *' '* ]] && printf -v value %%q "$value"
        case $kind in
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
            open) compopt -o nospace 2>/dev/null; COMPREPLY+=("$value") ;;
            *) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a plain described response
    local type key descr
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)}")
    for type key descr in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            open) compadd -U -S '' -V unsorted -- "$key" ;;
            *) if [[ $descr == "_" ]]; then plain+=("$key"); else described+=("$key:$descr"); fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#plain )) && compadd -U -V unsorted -a plain
    return 0
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
        COMP_CWORD=(commandline -t) %(prog_name)s 2>/dev/null)
    for completion in $response
        set -l parts (string split -m 1 "," -- $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case '*'
                echo $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


def _words(line: str) -> list[str]:
    """The words of a line that may end within a quote or after a backslash."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[str] = []
    try:
        found += iter(lexer)
    except ValueError:
        found.append(lexer.token)
    return found


class Bash(ShellComplete):
    """bash: the line up to the cursor comes in COMP_LINE; answers begin after the last colon of the word."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is typed, and that one."""
        line = os.environ.get("COMP_LINE", "")
        typed = _words(line)[1:]
        if not typed or line[-1:].isspace():
            return typed, ""
        *before, word = typed
        option, equals, value = word.partition("=")
        return ([*before, option], value) if equals and word.startswith("--") else (before, word)

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Completions of the part of the word that bash replaces."""
        found = super().get_completions(args, incomplete)
        cut = len(incomplete.rpartition(":")[0]) + 1 if ":" in incomplete else 0
        return [CompletionItem(i.value[cut:], type=i.type) for i in found]

    def format_completion(self, item: CompletionItem[str]) -> str:
        """One line."""
        return f"{item.type},{item.value}"


class Zsh(ZshComplete):
    """zsh, with items after which no blank follows."""

    source_template: ClassVar[str] = _ZSH


class Fish(FishComplete):
    """fish, which adds no blank after / by itself."""

    source_template: ClassVar[str] = _FISH


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}
for _shell in SHELLS.values():
    add_completion_class(_shell)
