package kv

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// MaxWalk bounds how many secrets and folders one walk may meet.
const MaxWalk = 100_000

// maxPath bounds a path, in bytes: Vault's storage takes no longer keys.
const maxPath = 32 << 10

// Walk gives the paths of all secrets at or below a folder, sorted. The folder
// ends in a slash, or is empty for the whole mount; a path without a slash at
// its end is a secret, and stands for itself.
func Walk(ctx context.Context, s Store, mount, from string) ([]string, error) {
	return WalkBy(ctx, func(ctx context.Context, folder string) ([]string, error) { return s.List(ctx, mount, folder) }, from)
}

// WalkBy is Walk where something else than a Store lists a folder.
func WalkBy(ctx context.Context, list func(ctx context.Context, folder string) ([]string, error), from string) ([]string, error) {
	if from != "" && !strings.HasSuffix(from, "/") {
		return []string{from}, nil
	}
	var out []string
	todo := []string{from}
	for met := 0; len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if len(dir) > maxPath {
			return nil, fmt.Errorf("folders are more than %d bytes deep below %q", maxPath, from)
		}
		names, err := list(ctx, dir)
		if err != nil {
			return nil, err
		}
		if met += len(names); met > MaxWalk {
			return nil, fmt.Errorf("more than %d secrets and folders are below %q", MaxWalk, from)
		}
		for _, name := range names {
			switch at := strings.IndexByte(name, '/'); {
			case at == len(name)-1 && at > 0:
				todo = append(todo, dir+name)
			case at < 0 && name != "":
				out = append(out, dir+name)
			default:
				return nil, fmt.Errorf("list %q: %q is no name", dir, name)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}
