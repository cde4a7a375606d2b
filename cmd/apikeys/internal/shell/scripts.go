package shell

import "strings"

// Shells are those that there is a script for.
var Shells = []string{"bash", "zsh", "fish"}

// Script returns what a shell reads to complete the program of a name. It runs
// `NAME __complete WORD...`, which prints a candidate a line, its help behind a tab.
func Script(shell, name string) string {
	return strings.ReplaceAll(scripts[shell], "NAME", name)
}

var scripts = map[string]string{
	"bash": `_NAME() {
  # bash takes = and : for words of their own; the program gets whole ones.
  local line=${COMP_LINE:0:COMP_POINT} words=() candidate rest
  IFS=$' \t\n' read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  local whole=${words[${#words[@]}-1]}
  # What stands before the last = or : is not part of the word that bash replaces.
  local before=${whole%"${whole##*[=:]}"}
  COMPREPLY=()
  while IFS=$'\t' read -r candidate rest; do
    COMPREPLY+=("${candidate#"$before"}")
  done < <(NAME __complete -- "${words[@]:1}" 2>/dev/null)
  [[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default 2>/dev/null || true
}
complete -F _NAME NAME
`,
	"zsh": `#compdef NAME
_NAME() {
  local -a lines described
  local line
  lines=("${(@f)$(NAME __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  for line in $lines; do
    [[ -n $line ]] && described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  if (( ${#described} )); then
    _describe NAME described
  else
    _files
  fi
}
if [[ $funcstack[1] == _NAME ]]; then _NAME "$@"; else compdef _NAME NAME; fi
`,
	"fish": `function __NAME_complete
  set -l words (commandline -opc) (commandline -ct)
  NAME __complete -- $words[2..-1] 2>/dev/null
end
complete -c NAME -f -a '(__NAME_complete)'
complete -c NAME -n 'string match -qr -- "-file\$" (commandline -opc)[-1]' -F
`,
}
