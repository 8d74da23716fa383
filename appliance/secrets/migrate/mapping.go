package migrate

import (
	"bytes"
	"fmt"
)

// MappingFile is what the Python client looks for in its working directory.
const MappingFile = "strongroom-env.toml"

const mappingFormat = 1

// MappingName is the mapping file of an environment, where there are several.
func MappingName(environment string) string { return "strongroom-env." + environment + ".toml" }

// Environments of the plan that have something in Vault, sorted.
func (p *Plan) Environments() []string {
	set := map[string]bool{}
	for _, e := range p.Variable {
		if e.Kind == KindKV || e.Kind == KindAPIKey {
			set[e.Environment] = true
		}
	}
	return sortedKeys(set)
}

// Mapping is the file that tells strongroom_dagster.env where each variable of
// an environment lives: format 1, as python/src/strongroom_dagster/env.py reads
// it. A name that two files of the environment send to different places is
// left out and given in ambiguous.
func (p *Plan) Mapping(environment string) (file []byte, ambiguous []string) {
	entries := map[string]Entry{}
	twice := map[string]bool{}
	for _, e := range p.Variable {
		if e.Environment != environment || (e.Kind != KindKV && e.Kind != KindAPIKey) {
			continue
		}
		if old, ok := entries[e.Name]; ok && (old.Mount != e.Mount || old.Path != e.Path || old.Field != e.Field) {
			twice[e.Name] = true
		}
		entries[e.Name] = e
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Which variable is which secret of %s in %s. Written by strongroom migrate.\nformat = %d\n", p.App, environment, mappingFormat)
	for _, name := range sortedKeys(entries) {
		if twice[name] {
			continue
		}
		e := entries[name]
		engine := "kv"
		if e.Kind == KindAPIKey {
			engine = "apikeys"
		}
		fmt.Fprintf(&b, "\n[variables.%s]\nengine = %s\nmount = %s\npath = %s\n", tomlString(name), tomlString(engine), tomlString(e.Mount), tomlString(e.Path))
		if e.Field != "" {
			fmt.Fprintf(&b, "field = %s\n", tomlString(e.Field))
		}
	}
	return b.Bytes(), sortedKeys(twice)
}

// mappingFiles are the mapping files by name: one environment has the plain
// name.
func (p *Plan) mappingFiles() (files map[string][]byte, ambiguous []string) {
	envs := p.Environments()
	files = map[string][]byte{}
	for _, env := range envs {
		data, bad := p.Mapping(env)
		name := MappingName(env)
		if len(envs) == 1 {
			name = MappingFile
		}
		files[name] = data
		for _, n := range bad {
			ambiguous = append(ambiguous, env+": "+n)
		}
	}
	return files, ambiguous
}
