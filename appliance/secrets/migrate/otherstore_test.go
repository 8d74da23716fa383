package migrate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/appliance/secrets/migrate/storetest"
)

// What the stores print, and what is made of it. Values are invented.
func TestOtherStore(t *testing.T) {
	tests := []struct {
		name, text string
		want       map[string]string
		fault      string // in the only problem, where it is refused
	}{
		{"Doppler's JSON", `{"DB_PASSWORD":"inv-77'\"\\n#","DOPPLER_CONFIG":"prd","PORT":"8080"}`, map[string]string{"DB_PASSWORD": `inv-77'"\n#`, "DOPPLER_CONFIG": "prd", "PORT": "8080"}, ""},
		{"Doppler's env", "DB_PASSWORD=\"inv-77\"\nPORT=\"8080\"\n", map[string]string{"DB_PASSWORD": "inv-77", "PORT": "8080"}, ""},
		{"Infisical's list", `[{"key":"DB_PASSWORD","workspace":"w","value":"inv-77","type":"shared","tags":[{"a":1}]},{"key":"B","value":""}]`, map[string]string{"DB_PASSWORD": "inv-77", "B": ""}, ""},
		{"Infisical's dotenv", "DB_PASSWORD='inv-77'\nB='x y'\n", map[string]string{"DB_PASSWORD": "inv-77", "B": "x y"}, ""},
		{"AWS's SecretString", `{"username":"u","password":"inv-77","port":5432,"big":12345678901234567890,"exact":1.10,"exp":1E400,"on":true}` + "\n",
			map[string]string{"username": "u", "password": "inv-77", "port": "5432", "big": "12345678901234567890", "exact": "1.10", "exp": "1E400", "on": "true"}, ""},
		{"the whole of AWS's answer", `{"ARN":"arn:x","Name":"n","SecretString":"{\"password\":\"inv-77\"}","VersionStages":["AWSCURRENT"]}`, nil, "--query SecretString"},
		{"sops' dotenv", "DB_PASSWORD=inv-77\nB=x\n", map[string]string{"DB_PASSWORD": "inv-77", "B": "x"}, ""},
		{"BOM and blanks", "\ufeff \n {\"A\": \"b\"} \n", map[string]string{"A": "b"}, ""},
		{"nested", `{"A":"x","db":{"password":"inv-77","user":"u"}}`, nil, "db.password is not flat"},
		{"a list inside", `{"A":["inv-77"]}`, nil, "A[0] is not flat"},
		{"nested in a list", `[{"key":"A","value":{"deep":"inv-77"}}]`, nil, "A.deep is not flat"},
		{"null", `{"A":null}`, nil, "A is null"},
		{"twice", `{"A":"inv-77","A":"inv-78"}`, nil, `"A" stands there twice`},
		{"no name", `{"a b":"inv-77"}`, nil, `"a b" is no name`},
		{"an empty name", `{"":"inv-77"}`, nil, `"" is no name`},
		{"NUL", `{"A":"inv-77\u0000"}`, nil, "A holds a NUL"},
		{"half a character", `{"A":"inv-77\ud800"}`, nil, "A holds half a character"},
		{"cut", `{"A":"inv-77`, nil, "no JSON that is well formed"},
		{"more behind", `{"A":"inv-77"}{"B":"x"}`, nil, "no JSON that is well formed"},
		{"a list of texts", `["inv-77"]`, nil, "[0] is no object with key and value"},
		{"Latin 1", "{\"A\":\"inv-77\xe9\"}", nil, "not UTF-8"},
		{"a quote that ends too soon", "A='it's inv-77'\n", nil, "text after the closing quote"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, err := migrate.ReadOtherStore(strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: t.TempDir(), OtherStore: data, Reveal: true, Default: "production"})
			if err != nil {
				t.Fatal(err)
			}
			if tt.fault != "" {
				if bad := r.Fatal(); len(bad) != 1 || !strings.Contains(bad[0].Why, tt.fault) || strings.Contains(bad[0].String(), "inv-7") {
					t.Fatalf("got %v, want %q", bad, tt.fault)
				}
				return
			}
			if len(r.Fatal()) > 0 || len(r.Stops()) > 0 || len(r.Variables) != len(tt.want) {
				t.Fatalf("%v %v, %d variables", r.Fatal(), r.Stops(), len(r.Variables))
			}
			for _, v := range r.Variables {
				if v.Definitions[0].Value != tt.want[v.Name] {
					t.Errorf("%s is %q, want %q", v.Name, v.Definitions[0].Value, tt.want[v.Name])
				}
			}
		})
	}
	for name, text := range map[string]string{"empty": " \n", "large": strings.Repeat("A=b\n", dotenv.MaxSize/4+1)} {
		if _, err := migrate.ReadOtherStore(strings.NewReader(text)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// Lines that mean one thing to one reader and another to the next are not
// guessed at.
func TestOtherStoreStops(t *testing.T) {
	for _, text := range []string{"A=pa#ss-77\n", "A=pa$HOME-77\n", `A='pa\\ss-77'` + "\n"} {
		o := migrate.ScanOptions{Root: t.TempDir(), OtherStore: []byte(text)}
		r, err := migrate.Scan(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if stops := r.Stops(); len(stops) == 0 || !strings.Contains(stops[0].Why, "as JSON") {
			t.Errorf("%q: %+v", text, r.Differences)
		}
		o.Dialects = map[string]dotenv.Dialect{migrate.OtherStore: dotenv.Docker}
		if r, err = migrate.Scan(t.Context(), o); err != nil || len(r.Stops()) > 0 {
			t.Errorf("%q with a dialect: %v %+v", text, err, r.Stops())
		}
	}
}

// From another store into Vault: everything moves, nothing is written to the
// disk, later steps need the export no more.
func TestFromOtherStore(t *testing.T) {
	dir := plant(t, map[string]string{".env": "DB_PASSWORD=from-the-tree-1\n"})
	data := []byte(`{"API_TOKEN":"inv-77-secret","LOG_LEVEL":"inv-info","DOPPLER_CONFIG":"prd","EMPTY":"","CERT":"` + strings.Repeat("inv-77", 30<<10) + `"}`)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	store := storetest.NewFake(nil, nil)
	file := filepath.Join(dir, migrate.PlanFile)
	plan := func(other []byte) *migrate.Plan {
		r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, OtherStore: other, Default: "production"})
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := migrate.NewPlan(r, "app")
		if err != nil {
			t.Fatal(err)
		}
		old, _ := migrate.ReadPlan(file)
		p, _, err := migrate.Replan(migrate.ReplanOptions{Root: dir, Old: old, Fresh: fresh})
		if err != nil {
			t.Fatal(err)
		}
		if err := migrate.WritePlan(dir, file, p.Encode()); err != nil {
			t.Fatal(err)
		}
		if p, err = migrate.LoadPlan(file); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := plan(data)
	kinds := map[string]string{}
	for _, e := range p.Variable {
		kinds[e.Name] = e.Kind
	}
	for name, want := range map[string]string{"API_TOKEN": "kv", "LOG_LEVEL": "kv", "CERT": "kv", "DB_PASSWORD": "kv", "DOPPLER_CONFIG": "plain", "EMPTY": "plain"} {
		if kinds[name] != want {
			t.Errorf("%s is planned %q, want %q", name, kinds[name], want)
		}
	}
	apply := func(p *migrate.Plan, other []byte) (migrate.Result, error) {
		return migrate.Apply(t.Context(), migrate.ApplyOptions{Root: dir, Plan: p, Store: store, OtherStore: other})
	}
	if _, err := apply(p, nil); err == nil || !strings.Contains(err.Error(), "--from") {
		t.Errorf("without the export: %v", err)
	}
	r, err := apply(p, data)
	if err != nil || r.Written != 4 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0].Why, "CERT has 184320 bytes") {
		t.Fatalf("%+v, %v", r, err)
	}
	s, err := store.Read(t.Context(), "secret", "app/production/api-token")
	if err != nil || s.Data["value"] != "inv-77-secret" {
		t.Errorf("Vault has %v, %v", s.Data, err)
	}
	// With the export a value is compared, without it looked for in Vault alone.
	for _, tt := range []struct {
		other []byte
		want  string
	}{{data, migrate.StateOK}, {nil, migrate.StateMoved}, {[]byte(`{"API_TOKEN":"inv-78-rotated"}`), migrate.StateDiffers}} {
		all, err := migrate.Verify(t.Context(), migrate.VerifyOptions{Root: dir, Plan: p, Store: store, OtherStore: tt.other})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			if v.Name == "API_TOKEN" && v.State != tt.want {
				t.Errorf("%s is %s, want %s", v.Name, v.State, tt.want)
			}
		}
	}
	if _, err := migrate.Cutover(t.Context(), migrate.CutoverOptions{Root: dir, Plan: p, Store: store, Recipients: []age.Recipient{key.Recipient()}}); err != nil {
		t.Errorf("cutover: %v", err)
	}
	// A later plan of the tree alone keeps what has moved.
	if r, err = apply(plan(nil), nil); err != nil || r.Moved != 4 {
		t.Errorf("again: %+v, %v", r, err)
	}
	err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(p)
		if strings.Contains(string(text), "inv-") {
			t.Errorf("%s holds a value", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
