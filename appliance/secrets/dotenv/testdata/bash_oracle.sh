#!/bin/bash
# Sources each file of a folder with set -a, in a shell of its own that has no variable and no program
# to run, and writes the environment that a program would get: NUL-terminated pairs and an empty one
# at the end of each file. The argument is the folder, with files 0, 1, 2 …
set -u
folder=$1
for ((i = 0; ; i++)); do
	[[ -e $folder/$i ]] || break
	# env -i leaves what bash makes itself: PWD, SHLVL, _ and OLDPWD, which are not counted.
	(cd "$folder/empty" && exec env -i /bin/bash --norc --noprofile -c 'PATH=/nowhere; set -a; . "$1" >/dev/null; unset PATH; exec /usr/bin/env -0' bash "$folder/$i") 2>/dev/null
	printf '\0'
done
