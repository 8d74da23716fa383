package presettest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"strongroom.example/plugin/provider/conformance"
)

// accessToken is what the token endpoints below give for a client's secret.
const accessToken = "canary-access-token"

// tokenEndpoint answers as RFC 6749 has it, to a client that shows its secret.
func tokenEndpoint(f *conformance.Fake, scope string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, secret, ok := r.BasicAuth()
		if !ok || url.QueryEscape(f.Credential[0]) != id || url.QueryEscape(f.Credential[1]) != secret || f.Denied() {
			conformance.JSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
			return
		}
		if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "client_credentials" || r.PostForm.Get("scope") != scope {
			conformance.JSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_scope"})
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"access_token": accessToken, "token_type": "Bearer", "expires_in": 3600})
	}
}

// https://docs.databricks.com/api/workspace/tokenmanagement
func databricks() Service {
	f := &conformance.Fake{
		Credential: []string{"canary-client", "canary-client-secret", accessToken}, Limit: 600,
		ID: func(n int) string {
			return fmt.Sprintf("5715498424f15ee0213be729257b53fc35a47d5953e3bdfd8ed22a0b93%06x", n)
		},
		Value: func(_ int, random string) string { return "dapi" + random[:32] },
		Refusal: func(m string) string {
			return fmt.Sprintf(`{"error_code":"INVALID_PARAMETER_VALUE","message":%s}`, conformance.Quote(m))
		},
	}
	s := newService(f, func(r *http.Request) bool { return bearer(r) == accessToken })
	refuse := func(w http.ResponseWriter, status int, code, message string) {
		conformance.JSON(w, status, map[string]any{"error_code": code, "message": message})
	}
	show := func(r conformance.Record) map[string]any {
		out := map[string]any{"token_id": r.ID, "comment": r.Name, "creation_time": r.Created.UnixMilli(), "expiry_time": -1,
			"created_by_id": 1, "created_by_username": "admin", "owner_id": 2, "workspace_id": 3}
		if !r.LastUsed.IsZero() {
			out["last_used_day"] = r.LastUsed.UnixMilli()
		}
		if life, ok := r.Params["life"].(int64); ok {
			out["expiry_time"] = life
		}
		return out
	}
	s.open("POST /oidc/v1/token", tokenEndpoint(f, "all-apis"))
	s.handle("POST /api/2.0/token-management/on-behalf-of/tokens", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Application string `json:"application_id"`
			Comment     string
			Life        int64 `json:"lifetime_seconds"`
		}
		if !read(r, &in) || len(in.Application) != 36 || in.Comment == "" || in.Life < 0 {
			refuse(w, http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "application_id is not valid")
			return
		}
		rec, ok := f.Create(in.Comment, map[string]any{"life": time.Now().UnixMilli() + in.Life*1000})
		if !ok {
			refuse(w, http.StatusBadRequest, "QUOTA_EXCEEDED", "The number of tokens has exceeded the quota")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"token_value": rec.Value, "token_info": show(rec)})
	})
	s.handle("GET /api/2.0/token-management/tokens", func(w http.ResponseWriter, _ *http.Request) {
		out := map[string]any{} // without token_infos when there are none
		for _, rec := range f.All() {
			infos, _ := out["token_infos"].([]any)
			out["token_infos"] = append(infos, show(rec))
		}
		conformance.JSON(w, http.StatusOK, out)
	})
	s.open("GET /api/2.0/preview/scim/v2/Me", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := f.ByValue(bearer(r)); !ok {
			refuse(w, http.StatusForbidden, "403", "Invalid access token.")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"id": "2", "active": true})
	})
	s.handle("DELETE /api/2.0/token-management/tokens/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			refuse(w, http.StatusNotFound, "RESOURCE_DOES_NOT_EXIST", "Token does not exist")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{})
	})
	return newServerBy(f, s.mux, func(r *http.Request) string {
		if r.URL.Path == "/oidc/v1/token" {
			return "token"
		}
		return conformance.ByMethod(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/Me") })(r)
	})
}

var (
	patAdd    = regexp.MustCompile(`^ALTER USER "(DAGSTER)" ADD PROGRAMMATIC ACCESS TOKEN "([A-Za-z0-9_-]+)" ROLE_RESTRICTION = '([A-Z_]+)' DAYS_TO_EXPIRY = ([0-9]+)$`)
	patShow   = regexp.MustCompile(`^SHOW USER PROGRAMMATIC ACCESS TOKENS FOR USER "DAGSTER"$`)
	patRemove = regexp.MustCompile(`^ALTER USER "DAGSTER" REMOVE PROGRAMMATIC ACCESS TOKEN "([A-Za-z0-9_-]+)"$`)
)

// https://docs.snowflake.com/en/developer-guide/sql-api/reference, and the
// statements about programmatic access tokens.
func snowflake() Service {
	f := &conformance.Fake{
		Credential: []string{"canary-client", "canary-client-secret", accessToken}, Limit: 15,
		NameIsID: true, ID: strconv.Itoa,
		Value: func(_ int, random string) string { return "eyJ" + random + "." + random },
		Refusal: func(m string) string {
			return fmt.Sprintf(`{"code":"001003","sqlState":"42000","message":%s,"statementHandle":"01b0"}`, conformance.Quote(m))
		},
	}
	statement := func(r *http.Request) string {
		var in struct{ Statement string }
		if json.NewDecoder(r.Body).Decode(&in) != nil {
			return ""
		}
		return in.Statement
	}
	rows := func(w http.ResponseWriter, columns []string, data []any) {
		types := []any{}
		for _, name := range columns {
			types = append(types, map[string]any{"name": name, "type": "text"})
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"code": "090001", "sqlState": "00000", "message": "Statement executed successfully.",
			"statementHandle": "01b0", "resultSetMetaData": map[string]any{"numRows": len(data), "format": "jsonv2", "rowType": types}, "data": data})
	}
	fail := func(w http.ResponseWriter, status int, code, message string) {
		conformance.JSON(w, status, map[string]any{"code": code, "sqlState": "02000", "message": message, "statementHandle": "01b0"})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth/token", tokenEndpoint(f, "session:role:TOKEN_ADMIN"))
	mux.HandleFunc("POST /api/v2/statements", func(w http.ResponseWriter, r *http.Request) {
		text, token := statement(r), bearer(r)
		if text == "SELECT CURRENT_USER()" {
			if _, ok := f.ByValue(token); !ok || r.Header.Get("X-Snowflake-Authorization-Token-Type") != "PROGRAMMATIC_ACCESS_TOKEN" {
				fail(w, http.StatusUnauthorized, "390303", "Programmatic access token is invalid.")
				return
			}
			rows(w, []string{"CURRENT_USER()"}, []any{[]any{"DAGSTER"}})
			return
		}
		if f.Denied() || token != accessToken || r.Header.Get("X-Snowflake-Authorization-Token-Type") != "OAUTH" {
			fail(w, http.StatusUnauthorized, "390303", "Invalid OAuth access token.")
			return
		}
		switch add, remove := patAdd.FindStringSubmatch(text), patRemove.FindStringSubmatch(text); {
		case add != nil:
			days, _ := strconv.Atoi(add[4])
			if _, taken := f.Find(func(r conformance.Record) bool { return r.Name == add[2] }); taken || days < 1 || days > 365 {
				fail(w, http.StatusUnprocessableEntity, "002002", "SQL compilation error: Object already exists, or DAYS_TO_EXPIRY is not valid.")
				return
			}
			rec, ok := f.Create(add[2], nil)
			if !ok {
				fail(w, http.StatusUnprocessableEntity, "394300", "The maximum number of programmatic access tokens is reached for the user.")
				return
			}
			rows(w, []string{"token_name", "token_secret"}, []any{[]any{rec.Name, rec.Value}})
		case patShow.MatchString(text):
			data := []any{}
			for _, rec := range f.All() {
				data = append(data, []any{rec.Name, "DAGSTER", "LOADER", fmt.Sprintf("%d.000000000 1440", rec.Created.Unix()+86400), "ACTIVE", nil,
					fmt.Sprintf("%d.000000000 1440", rec.Created.Unix()), "ADMIN", nil, nil})
			}
			rows(w, []string{"name", "user_name", "role_restriction", "expires_at", "status", "comment", "created_on", "created_by",
				"mins_to_bypass_network_policy_requirement", "rotated_to"}, data)
		case remove != nil:
			rec, ok := f.Find(func(r conformance.Record) bool { return r.Name == remove[1] })
			if !ok || !f.Delete(rec.ID) {
				fail(w, http.StatusUnprocessableEntity, "002003", "SQL compilation error: Programmatic access token '"+remove[1]+"' does not exist or not authorized.")
				return
			}
			rows(w, []string{"status"}, []any{[]any{"Programmatic access token removed."}})
		default:
			fail(w, http.StatusUnprocessableEntity, "001003", "SQL compilation error: syntax error")
		}
	})
	return newServerBy(f, mux, func(r *http.Request) string {
		if r.URL.Path == "/oauth/token" {
			return "token"
		}
		switch text := statement(r); {
		case patShow.MatchString(text):
			return "list"
		case patRemove.MatchString(text):
			return "revoke"
		case strings.HasPrefix(text, "SELECT"):
			return "test"
		}
		return "create"
	})
}

// https://docs.getdbt.com/dbt-cloud/api-v3
func dbtCloud() Service {
	f := &conformance.Fake{
		Credential: []string{"dbtc_canary-credential"},
		ID:         func(n int) string { return strconv.Itoa(70000 + n) },
		Value:      func(_ int, random string) string { return "dbtc_" + random },
		Refusal: func(m string) string {
			return fmt.Sprintf(`{"status":{"code":400,"is_success":false,"user_message":%s,"developer_message":""},"data":null}`, conformance.Quote(m))
		},
	}
	token := func(r *http.Request) string { return after(r.Header.Get("Authorization"), "Token ") }
	s := newService(f, func(r *http.Request) bool { return token(r) == f.Credential[0] })
	good := map[string]any{"code": 200, "is_success": true, "user_message": "Success!", "developer_message": ""}
	const path = "/api/v3/accounts/42/service-tokens/"
	show := func(r conformance.Record) map[string]any {
		id, _ := strconv.Atoi(r.ID)
		return map[string]any{"id": id, "account_id": 42, "uid": "u" + r.ID, "name": r.Name, "state": 1}
	}
	s.handle("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Account int `json:"account_id"`
			Name    string
			State   int
			Grants  []struct {
				Set string `json:"permission_set"`
			} `json:"permission_grants"`
		}
		if !read(r, &in) || in.Account != 42 || in.Name == "" || in.State != 1 || len(in.Grants) == 0 || in.Grants[0].Set == "" {
			s.refuse(w, http.StatusBadRequest, "The request was invalid.")
			return
		}
		rec, _ := f.Create(in.Name, nil)
		out := show(rec)
		out["token_string"] = rec.Value
		conformance.JSON(w, http.StatusCreated, map[string]any{"status": good, "data": out})
	})
	s.handle("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		const size = 3 // whatever limit asks: there must be pages
		all := f.All()
		from := min(number(r, "offset", 0), len(all))
		items := []any{}
		for _, rec := range all[from:min(from+size, len(all))] {
			items = append(items, show(rec))
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"status": good, "data": items,
			"extra": map[string]any{"pagination": map[string]any{"count": len(items), "total_count": len(all)}}})
	})
	s.open("GET /api/v3/accounts/42/", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := f.ByValue(token(r)); !ok {
			s.refuse(w, http.StatusUnauthorized, "Invalid token.")
			return
		}
		s.refuse(w, http.StatusForbidden, "You do not have permission to perform this action.")
	})
	s.handle("DELETE "+path+"{id}/", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			s.refuse(w, http.StatusNotFound, "The requested resource was not found.")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"status": good, "data": map[string]any{"state": 2}})
	})
	return newServer(f, s.mux, func(r *http.Request) bool {
		return r.Method == http.MethodGet && !strings.Contains(r.URL.Path, "service-tokens")
	})
}
