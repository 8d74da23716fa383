package migrate_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
)

func scanTree(t testing.TB, files map[string]string, o migrate.ScanOptions) *migrate.Report {
	t.Helper()
	if o.Root == "" {
		o.Root = t.TempDir()
	}
	o.Dialect = dotenv.Python
	for name, text := range files {
		write(t, o.Root, name, text)
	}
	r, err := migrate.Scan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Secrets in files that this tool does not move are found, by kind of file; and
// what only looks like one in such files is not.
func TestElsewhere(t *testing.T) {
	const token = "gh" + "p_8wHk3VzYq0LmN5RbTxJc7GdFuPsEa2QiXo91"
	for name, tc := range map[string]struct{ file, text, want string }{
		"dbt":                      {"profiles.yml", "shop:\n  outputs:\n    prod:\n      type: postgres\n      user: loader\n      password: Fjord-77\n      port: 5432\n    dev:\n      password: \"{{ env_var('DBT_PASSWORD') }}\"\n  target: prod\n", "dbt shop.outputs.prod.password:6"},
		"dbt keyfile":              {"d/profiles.yml", "a:\n  outputs:\n    x:\n      keyfile_json:\n        private_key: abc123\n        token_uri: https://x/token\n      pass: p4\n", "dbt a.outputs.x.keyfile_json.private_key:5, dbt a.outputs.x.pass:7"},
		"notebook":                 {"a.ipynb", "{\n \"cells\": [\n  {\n   \"cell_type\": \"code\",\n   \"source\": [\n    \"import os\\n\",\n    \"DB_PASSWORD = \\\"Fjord-77\\\"\\n\",\n    \"url = 'postgres://u:Fjord-77@h/d'\\n\",\n    \"x = os.environ['TOKEN']\"\n   ]\n  }\n ]\n}\n", "notebook DB_PASSWORD:7, notebook :8"},
		"notebook on one line":     {"b.ipynb", `{"cells":[{"cell_type":"code","source":["api_key = 'q8Zr2Lw0Xv6Kt9Bn'\n"]}]}`, "notebook api_key:1"},
		"python":                   {"settings.py", "SECRET_KEY = 'django-insecure-x9k2'\nDATABASES = {'default': {'USER': 'u', 'PASSWORD': 'Fjord-77'}}\nconnect(host='h', password=\"hunter22\")\nTOKEN_URL = 'https://h/token'\nLABEL = 'password'\npassword = input('password')\nd['api_key'] = 'q8Zr2Lw0Xv6Kt9Bn'\n", "code SECRET_KEY:1, code PASSWORD:2, code password:3, code api_key:7"},
		"python, none":             {"forms.py", "PASSWORD_FIELD = 'password'\ntoken = 'access_token'\nif token == 'abc12345': pass\npassword = forms.CharField(label='Your password')\nSECRET = os.environ['SECRET']\nkey = 'name'\nx = f'postgres://u:{pw}@h'\n", ""},
		"a token alone":            {"a.py", "client = Client('" + token + "')\n", "code :1"},
		"javascript":               {"a.ts", "const apiKey = \"q8Zr2Lw0Xv6Kt9Bn\";\nconst c = { password: 'Fjord-77', user: 'u' };\nconst u: string = `https://h/?api_key=q8Zr2Lw0`;\ntype T = { password: 'x' };\n", "code apiKey:1, code password:2, code :3"},
		"go":                       {"a.go", "package a\nconst dbPassword = \"Fjord-77\"\nvar secretName = \"prod/db\"\n", "code dbPassword:2"},
		"java":                     {"A.java", "String password = \"Fjord-77\";\nprops.setProperty(\"db.password\", \"Fjord-78\");\n", "code password:1, code db.password:2"},
		"ruby":                     {"a.rb", "config.secret_key = 'q8Zr2Lw0Xv6Kt9Bn'\n  :password => \"Fjord-77\",\n", "code config.secret_key:1, code password:2"},
		"php":                      {"wp-config.php", "define('DB_PASSWORD', 'Fjord-77');\n$token = 'q8Zr2Lw0Xv6Kt9Bn';\n", "code DB_PASSWORD:1, code $token:2"},
		"csharp":                   {"A.cs", "var cs = \"Server=db;User Id=u;Password=Fjord-77;\";\nprivate const string ApiKey = \"q8Zr2Lw0Xv6Kt9Bn\";\n", "code :1, code ApiKey:2"},
		"tfvars":                   {"prod.tfvars", "region = \"eu\"\ndb_password = \"Fjord-77\"\n# token = \"x\"\nkey_name = \"deploy\"\ndb = { password = \"Fjord-78\" }\n", "terraform db_password:2, terraform password:5"},
		"terraform":                {"main.tf", "variable \"db_password\" {\n  default = \"Fjord-77\"\n}\nresource \"aws_db_instance\" \"x\" {\n  password = var.db_password\n}\n", "terraform db_password:2"},
		"tfvars.json":              {"x.auto.tfvars.json", "{\n \"db_password\": \"Fjord-77\",\n \"region\": \"eu\"\n}\n", "terraform db_password:2"},
		"tfvars with more":         {"more.tfvars", "users = [\n  { name = \"a\", password = \"Fjord-77\" },\n]\ntext = <<EOT\nDB_PASSWORD=Fjord-78\nEOT\n", "terraform password:2, terraform DB_PASSWORD:5"},
		"state of terraform":       {"terraform.tfstate", "{\n \"outputs\": {\n  \"db_password\": {\n   \"value\": \"Fjord-77\"\n  }\n },\n \"resources\": [{\n  \"type\": \"random_password\", \"attributes\": {\n   \"result\": \"Fjord-78\", \"length\": 16\n  }\n }]\n}\n", "terraform outputs.db_password.value:4, terraform resources.attributes.result:9"},
		"pgpass without a comment": {"pgpass.conf", "db:5432:*:app:Fjord-77\n", "pgpass password of app at db:1"},
		"htpasswd":                 {".htpasswd", "ann:$apr1$q8Zr2Lw0$Xv6Kt9Bn3Yc1Dm4Pq8Zr2L\n", "htpasswd password of ann:1"},
		"htpasswd by another name": {"nginx/passwd", "ann:$apr1$q8Zr2Lw0$Xv6Kt9Bn3Yc1Dm4Pq8Zr2L\nbob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", "text password of ann:1, text password of bob:2"},
		"htpasswd without a dot":   {"htpasswd", "ann:$apr1$q8Zr2Lw0$Xv6Kt9Bn3Yc1Dm4Pq8Zr2L\n", "htpasswd password of ann:1"},
		"a label of traefik":       {"compose.yml", "services:\n  a:\n    labels:\n      - \"traefik.http.middlewares.a.basicauth.users=ann:$$apr1$$q8Zr2Lw0$$Xv6Kt9Bn3Yc1Dm4Pq8Zr2L,bob:$$2y$$05$$c4WoMPo3SXsafkvaHHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\"\n", "compose password of ann:4, compose password of bob:4"},
		"a hash that is no user's": {"seed.yml", "hash: $2y$05$c4WoMPo3SXsafkvaHHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\nimage: a:$TAG\n", ""},
		"shadow":                   {"shadow", "root:$6$q8Zr2Lw0$Xv6Kt9Bn3Yc1Dm4Pq8Zr2LXv6Kt9Bn:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n", "text password of root:1"},
		"pgbouncer":                {"pgbouncer/userlist.txt", "\"ann\" \"md5d0c8ffd1a1b5f6a1d6d2b3c4d5e6f708\"\n\"bob\" \"Fjord-77\"\n\"later\" \"changeme\"\n", "userlist password of ann:1, userlist password of bob:2"},
		"ppp":                      {"ppp/chap-secrets", "# client server secret addresses\nann * Fjord-77 *\n", "ppp password of ann:2"},
		"ipsec":                    {"ipsec.secrets", "ann : EAP \"Fjord-77\"\n: PSK \"Fjord-78\"\n# x : PSK \"y\"\n: RSA host.pem\n", "ipsec password of ann:1, ipsec password of all:2"},
		"postfix":                  {"sasl_passwd", "[smtp.example.com]:587 me@example.com:Fjord-77\n", "postfix password of [smtp.example.com]:587:1"},
		"acl of redis":             {"users.acl", "user default off\nuser ann on >Fjord-77 ~* +@all\n", "redis password of ann:2"},
		"fstab":                    {"fstab", "//nas/x /mnt cifs username=me,password=Fjord-77 0 0\n/dev/sda1 / ext4 defaults 0 1\n", "fstab password of //nas/x:1"},
		"msmtp":                    {".msmtprc", "auth on\nuser me\npassword Fjord-77\npasswordeval \"gpg -d x\"\n", "settings password:3"},
		"mutt":                     {".muttrc", "set imap_pass=\"Fjord-77\"\nset imap_user=\"me\"\n", "settings imap_pass:1"},
		"a shell's own file":       {".bashrc", "export PATH=$HOME/bin:$PATH\nexport API_TOKEN=q8Zr2Lw0Xv6Kt9Bn\n", "settings API_TOKEN:2|shell API_TOKEN:2"},
		"samba":                    {".smbcredentials", "username=me\npassword=Fjord-77\n", "settings password:2"},
		"gem":                      {".gem/credentials", "---\n:password: Fjord-77\n", "settings password:2"},
		"wifi":                     {"wpa_supplicant.conf", "network={\n  ssid=\"x\"\n  psk=\"Fjord-77\"\n}\n", "settings psk:3"},
		"wireguard":                {"wg0.conf", "[Interface]\nPrivateKey = q8Zr2Lw0Xv6Kt9Bnq8Zr2Lw0Xv6Kt9Bnq8Zr2Lw0Xv6=\n[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nPresharedKey = q8Zr2Lw0Xv6Kt9Bnq8Zr2Lw0Xv6Kt9Bnq8Zr2Lw0Xv7=\n", "settings Interface.PrivateKey:2, settings Peer.PresharedKey:5"},
		"rclone":                   {"rclone.conf", "[s3]\naccess_key_id = AKIDEXAMPLE12\nsecret_access_key = q8Zr2Lw0Xv6Kt9Bn\n[sftp]\npass = q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4P\n", "settings s3.access_key_id:2, settings s3.secret_access_key:3, settings sftp.pass:5"},
		"docker's logins":          {".docker/config.json", "{\"auths\": {\n \"r.example\": {\"auth\": \"dXNlcjpGam9yZC03Nw==\"}\n}}\n", "json auths.r.example.auth:2"},
		"my.cnf":                   {".my.cnf", "[client]\nuser = a\npassword = Fjord-77\n", "settings client.password:3"},
		"kubeconfig elsewhere":     {"deploy/prod.kubeconfig", "apiVersion: v1\nkind: Config\nusers:\n- user:\n    token: q8Zr2Lw0Xv6Kt9Bn\n", "yaml users.user.token:5"},
		"kubeconfig of kubeadm":    {"admin.conf", "apiVersion: v1\nclusters: []\nkind: Config\nusers:\n- user: {password: Fjord-77}\n", "yaml users.user.password:5"},
		"a secret for a container": {"secrets/db_password.txt", "Fjord-77\n", "text :1"},
		"a secret without an end":  {"secrets/api_token", "q8Zr2Lw0Xv6Kt9Bn", "text :1"},
		"ansible's password":       {".vault_pass", "Fjord-77\n", "text :1"},
		"a placeholder in a file":  {"secrets/db_password.txt", "changeme\n", ""},
		"a text about passwords":   {"password.txt", "Choose a password.\n", ""},
		"variables by any name":    {"deploy/vars", "DB_HOST=h\nDB_PASSWORD=Fjord-77\nexport API_TOKEN=\"q8Zr2Lw0Xv6Kt9Bn\"\n", "text DB_PASSWORD:2, text API_TOKEN:3|text DB_PASSWORD:2, shell API_TOKEN:3"},
		"variables in a text":      {"HOWTO.txt", "Set this first:\nDB_PASSWORD=changeme\nAPI_TOKEN=<token>\nDB_PASSWORD=secret\nTOKEN=abc or so\nA_TOKEN=access_token\n", ""},
		"odbc":                     {"odbc.ini", "[shop]\nUID = a\nPWD = Fjord-77\n", "settings shop.PWD:3"},
		"sql":                      {"a.sql", "CREATE ROLE a LOGIN PASSWORD 'Fjord-77';\nCREATE USER x IDENTIFIED BY 'Fjord-78';\nCREATE TABLE t (password text);\nUPDATE t SET password = ?;\n", "code :1, code :2"},
		"crontab":                  {"crontab", "API_TOKEN=q8Zr2Lw0Xv6Kt9Bn\n0 3 * * * backup --password=Fjord-77\n", "commands API_TOKEN:1, commands :2"},
		"jenkinsfile":              {"Jenkinsfile", "environment {\n  DB_PASSWORD = 'Fjord-77'\n  TOKEN = credentials('deploy-token')\n}\n", "code DB_PASSWORD:2"},
		"rust":                     {"a.rs", "const API_KEY: &str = \"q8Zr2Lw0Xv6Kt9Bn\";\n", "code API_KEY:1"},
		"kubeconfig":               {".kube/config", "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tZnNnRUNsSTdNQ3ZXcHU2QmlubjhKU0Nw\nusers:\n- user:\n    token: q8Zr2Lw0Xv6Kt9Bn\n", "yaml users.user.token:8"},
		"a list of kubernetes":     {"list.yml", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  stringData:\n    any: Fjord-77\n", "kubernetes any:7"},
		"a file in a ConfigMap":    {"cm.yml", "apiVersion: v1\nkind: ConfigMap\ndata:\n  a.properties: |\n    spring.datasource.username=a\n    spring.datasource.password=Fjord-77\n", "kubernetes data.a.properties.spring.datasource.password:6"},
		"names of kubernetes":      {"es.yml", "apiVersion: external-secrets.io/v1\nkind: ExternalSecret\nspec:\n  data:\n  - secretKey: password\n    remoteRef: {key: shop/prod, property: password}\n---\napiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nspec:\n  encryptedData:\n    password: AgBy3i4OJSWKPiTySYZZA9rO43cGDEqbbM04QUaCekBJ7pOM\n", ""},
		"cloudformation":           {"stack.yml", "Parameters:\n  DBPassword:\n    Type: String\n    Default: Fjord-77\n", "yaml Parameters.DBPassword.Default:4"},
		"encrypted by pulumi":      {"Pulumi.prod.yaml", "config:\n  shop:dbPassword: Fjord-77\n  shop:apiToken:\n    secure: AAABAKq7AJ73bv0XyOBnRd7r25lbi8AJBsXyP6lTAxulYTd\n", "yaml config.shop:dbPassword:2"},
		"postman":                  {"env.json", "{\"values\": [\n {\"key\": \"token\", \"value\": \"q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4P\"},\n {\"key\": \"base_url\", \"value\": \"https://x\"}\n]}\n", "json token:2"},
		"plist":                    {"Info.plist", "<dict>\n<key>API_KEY</key>\n<string>q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4P</string>\n<key>Label</key>\n<string>Password</string>\n</dict>\n", "xml API_KEY:3"},
		"what a script sets":       {"set.sh", "API_KEY=${API_KEY:-q8Zr2Lw0Xv6Kt9Bn}\nredis-cli -a Fjord-77 ping\ndocker login -u a -p Fjord-78 r.example\npsql \"host=db user=a password=Fjord-79\"\naws configure set aws_secret_access_key q8Zr2Lw0Xv6Kt9Bn\ndate -u +%Y-%m-%dT%H:%M:%SZ\n", "commands API_KEY:1, commands :2, commands :3, commands :4, commands aws_secret_access_key:5"},
		"a drop-in of a unit":      {"a.service.d/x.conf", "[Service]\nEnvironment=\"SMTP_PASSWORD=Fjord-77\"\n", "systemd SMTP_PASSWORD:2"},
		"printed by a notebook":    {"out.ipynb", "{\n \"cells\": [\n  {\n   \"outputs\": [\n    \"token: " + token + "\\n\"\n   ],\n   \"source\": [\n    \"%env API_KEY=q8Zr2Lw0Xv6Kt9Bn\\n\",\n    \"os.environ['DB_PASSWORD'] = 'Fjord-77'\"\n   ]\n  }\n ]\n}\n", "notebook :5, notebook API_KEY:8, notebook DB_PASSWORD:9"},
		"prose":                    {"README.md", "Set `PASSWORD` and use the token " + token + ", please.\nSee postgres://app:q8Zr2Lw0Xv6Kt9Bn@db.example/shop or\n`postgres://user:password@localhost/db`, https://u:hunter22@h.\nThe password is Fjord-77. sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9\n", "text :1, text :2"},
		"data":                     {"export.csv", "id,token\n1," + token + "\n", "text :2"},
		"a key in any text":        {"notes", "the key:\n-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEpAIBAAKCAQEAq8Zr2Lw0Xv6Kt9Bn\n", "text :2"},
		"a key that is told of":    {"keys.md", "It begins with -----BEGIN RSA PRIVATE " + "KEY----- and ends.\n", ""},
		"a key of rails":           {"config/master.key", "0a1b2c3d4e5f60718293a4b5c6d7e8f9\n", "private-key :1"},
		"by Windows":               {"win.json", "\xff\xfe{\x00\"\x00p\x00a\x00s\x00s\x00w\x00o\x00r\x00d\x00\"\x00:\x00\"\x00F\x00j\x00o\x00r\x00d\x00-\x007\x007\x00\"\x00}\x00", "json password:1"},
		"javascript by .env":       {".env.js", "window.ENV = { API_KEY: \"q8Zr2Lw0Xv6Kt9Bn\" };\n", "code API_KEY:1"},
		"codes and texts of code":  {"codes.ts", "INVALID_PASSWORD = \"5020\",\nconst STORAGE_KEY = \"sidebar:width-2\";\nconst t = { token: \"--background\" };\ndependencies = { \"tiktoken\": \"^1.0.20\" };\nx[\"is_password\"] = PASSWORD == \"1\";\nconst shown = { githubToken: \"ghx_...123\" };\n", ""},
		"types and ids of data":    {"types.yml", "type: ScoreSubjectObservationV3\ntags:\n  - LegacyObservationsV1\nargs: thread_fbFB5caAj0sEpE1c5ICMDs7I\ndocs: |\n  Call it with\n  password=s3cret99 or so\n  and wait.\n", ""},
		"tokens as keys":           {"map.json", "{\"tokens\": {\n \"" + token + "\": {\"password\": \"Fjord-77\"},\n \"q8Zr2Lw0Xv6Kt9Bn3Yc1\": {\"password\": \"Fjord-78\"}\n}}\n", "json •••:2, json tokens.•••.password:3"},
		"netrc":                    {".netrc", "machine h.example\n  login u\n  password Fjord-77\nmachine i login v password Fjord-78\n", "netrc password of h.example:3, netrc password of i:4"},
		"pgpass":                   {".pgpass", "# hostname:port:database:username:password\nlocalhost:5432:*:app:Fjo\\:rd-77\n", "pgpass password of app at localhost:2"},
		"ini":                      {"a.ini", "; password = x\n[db]\nuser = u\npassword = Fjord-77\nurl = mysql://u:Fjord-77@h/d\ntoken_ttl = 5\n", "settings db.password:4, settings db.url:5"},
		"cfg":                      {"airflow.cfg", "[core]\nfernet_key = q8Zr2Lw0Xv6Kt9Bnq8Zr2Lw0Xv6Kt9Bn\n[database]\nsql_alchemy_conn = postgresql://a:b7@h/d\n", "settings core.fernet_key:2, settings database.sql_alchemy_conn:4"},
		"aws credentials":          {".aws/credentials", "[default]\naws_access_key_id = AKIDEXAMPLE12\naws_secret_access_key = q8Zr2Lw0Xv6Kt9Bn\n", "settings default.aws_access_key_id:2, settings default.aws_secret_access_key:3"},
		"properties":               {"application.properties", "spring.datasource.password=Fjord-77\nspring.datasource.url: jdbc:postgresql://h/d\nserver.ssl.key-store=classpath:k.p12\nspring.mail.password=${MAIL_PASSWORD}\n", "settings spring.datasource.password:1"},
		"npmrc":                    {".npmrc", "registry=https://registry.npmjs.org/\n//registry.npmjs.org/:_authToken=q8Zr2Lw0Xv6Kt9Bn\n//r/:_authToken=${NPM_TOKEN}\n", "settings //registry.npmjs.org/:_authToken:2"},
		"redis.conf":               {"redis.conf", "port 6379\nrequirepass Fjord-77\n", "settings requirepass:2"},
		"toml":                     {".streamlit/secrets.toml", "db_username = \"u\"\n[db]\npassword = \"Fjord-77\"\nconn = { host = \"h\", password = \"Fjord-78\" }\n", "settings db.password:3, settings password:4"},
		"appsettings":              {"appsettings.Production.json", "{\n  \"ConnectionStrings\": {\n    \"Default\": \"Server=h;User Id=u;Password=Fjord-77;\"\n  },\n  \"Jwt\": { \"Key\": \"q8Zr2Lw0Xv6Kt9Bn\", \"Issuer\": \"x\" },\n  \"Smtp\": { \"Password\": \"\" }\n}\n", "dotnet ConnectionStrings.Default:3, dotnet Jwt.Key:5"},
		"spring yaml":              {"src/main/resources/application-prod.yml", "spring:\n  datasource:\n    url: jdbc:postgresql://h/d?user=u&password=Fjord-77\n    password: Fjord-77\n  mail:\n    password: ${MAIL_PASSWORD}\n    other-password: ${X_PASSWORD:Fjord-78}\n", "spring spring.datasource.url:3, spring spring.datasource.password:4, spring spring.mail.other-password:7"},
		"rules and interpolations": {"a.php", "$r = ['password' => 'required|string', 'token' => 'nullable', 'secret' => 'encrypted'];\n$u = \"mysql://{$user}:{$pass}@h/d\";\n$v = \"mysql://u:$pass@h\";\n$w = \"mysql://u:Fjord-77@h\";\n", "code :4"},
		"interpolations in code":   {"b.py", "u = f\"postgres://{u}:{p.q}@h\"\nv = 'postgres://%s:%s@h' % x\nw = 'Server=h;Password={};'.format(p)\nhost = f'x?token={t}'\nsql = 'UPDATE u SET password = ?'\n", ""},
		"translations":             {"lang/de.json", "{\"password\": \"Passwort1\", \"token\": \"abc123def\"}", ""},
		"toml with a list":         {"t.toml", "env = [\n  \"DB_PASSWORD=${db_password}\",\n  \"API_KEY=Fjord-77\",\n  'TOKEN=Fjord-78' ]\n", "settings API_KEY:3, settings TOKEN:4"},
		"nginx":                    {"nginx.conf", "location / {\n  proxy_pass http://127.0.0.1:9000;\n  fastcgi_pass   127.0.0.1:9000;\n}\n", ""},
		"volumes of compose":       {"compose.yaml", "services:\n  a:\n    volumes:\n      - api_keys:/app/db\n    ports:\n      - \"80:80\"\n", ""},
		"kubernetes secret":        {"k8s/secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  anything: RmpvcmQtNzc=\nstringData:\n  other: Fjord-78\n  later: \"{{ .Values.x }}\"\n", "kubernetes anything:6, kubernetes other:8"},
		"kubernetes env":           {"k8s/deploy.yaml", "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - name: a\n        env:\n        - name: DB_PASSWORD\n          value: Fjord-77\n        - name: TOKEN\n          valueFrom:\n            secretKeyRef: {name: s, key: token}\n        args: [\"--password=Fjord-78\"]\n", "kubernetes DB_PASSWORD:10, kubernetes spec.template.spec.containers.args:14"},
		"two documents":            {"k.yml", "apiVersion: v1\nkind: ConfigMap\ndata:\n  DB_PASSWORD: Fjord-77\n---\napiVersion: v1\nkind: Secret\nstringData:\n  a: b7\n", "kubernetes data.DB_PASSWORD:4, kubernetes a:9"},
		"compose":                  {"docker-compose.yml", "services:\n  db:\n    environment:\n      POSTGRES_PASSWORD: ${DB_PASSWORD:-Fjord-77}\n      OTHER_PASSWORD: ${OTHER}\n  web:\n    environment:\n      - API_TOKEN=q8Zr2Lw0\n      - PLAIN=1\n  redis:\n    command: redis-server --requirepass Fjord-78\n    healthcheck:\n      test: [\"CMD\", \"redis-cli\", \"-a\", \"$REDIS_PASSWORD\", \"ping\"]\n", "compose services.db.environment.POSTGRES_PASSWORD:4, compose API_TOKEN:8, compose services.redis.command:11"},
		"actions":                  {".github/workflows/a.yml", "env:\n  TOKEN: ${{ secrets.TOKEN }}\n  DB_PASSWORD: Fjord-77\n", "actions DB_PASSWORD:3|yaml env.DB_PASSWORD:3"},
		"gitlab":                   {".gitlab-ci.yml", "variables:\n  POSTGRES_PASSWORD: Fjord-77\n  GIT_DEPTH: 5\njob:\n  script:\n    - curl -u admin:Fjord-77 https://h\n    - echo $TOKEN\n", "yaml variables.POSTGRES_PASSWORD:2, yaml job.script:6"},
		"openapi":                  {"openapi.yml", "components:\n  schemas:\n    Login:\n      properties:\n        password:\n          type: string\n        token:\n          $ref: '#/components/schemas/Token'\n      required: [password, token]\n", ""},
		"locale":                   {"en.json", "{\n \"password\": \"Password\",\n \"forgot_password\": \"Forgot your password?\",\n \"token\": \"Token\",\n \"apiKey\": \"Your API key\"\n}\n", ""},
		"ecs":                      {"task.json", "{\"containerDefinitions\":[{\"environment\":[{\"name\":\"DB_PASSWORD\",\"value\":\"Fjord-77\"},{\"value\":\"1\",\"name\":\"PORT\"}]}]}", "json DB_PASSWORD:1"},
		"web.config":               {"web.config", "<configuration>\n<add key=\"SmtpPassword\" value=\"Fjord-77\"/>\n<add name=\"d\" connectionString=\"Server=h;User Id=u;Password=Fjord-78;\"/>\n<assembly publicKeyToken=\"b77a5c561934e089\"/>\n</configuration>\n", "xml SmtpPassword:2, xml connectionString:3"},
		"maven":                    {"settings.xml", "<server>\n  <username>u</username>\n  <password>Fjord-77</password>\n</server>\n", "xml password:3"},
		"shell":                    {"run.sh", "export DB_PASSWORD=Fjord-77\nmysql -u root -pFjord-78 db\nPGPASSWORD=Fjord-79 psql -h h\ncurl -H 'Authorization: Bearer q8Zr2Lw0Xv6Kt9Bn' https://h\ncurl -H \"Authorization: Bearer $TOKEN\" https://h\npsql \"postgres://u:Fjord-77@h/d\"\n", "shell DB_PASSWORD:1, commands :2, commands PGPASSWORD:3, commands :4, commands :6"},
		"dockerfile":               {"Dockerfile", "FROM x\nENV API_TOKEN=q8Zr2Lw0\nRUN pip install --index-url https://u:Fjord-77@h/simple x\n", "dockerfile API_TOKEN:2, commands :3"},
		"unit":                     {"a.service", "[Service]\nEnvironment=DB_PASSWORD=Fjord-77\nExecStart=/bin/x --token=q8Zr2Lw0 --port=1\n", "systemd DB_PASSWORD:2, commands :3"},
		"private key":              {"certs/a.key", "-----BEGIN RSA PRIVATE " + "KEY-----\nabc\n", "private-key :1"},
		"certificate":              {"certs/a.pem", "-----BEGIN CERTIFICATE-----\nabc\n", ""},
		"git's configuration":      {".git/config", "[remote \"origin\"]\n\turl = https://x:Fjord-77@git.example/x.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[http \"https://h\"]\n\textraheader = AUTHORIZATION: basic q8Zr2Lw0Xv6Kt9Bn\n", "git-config remote \"origin\".url:2, git-config http \"https://h\".extraheader:5"},
		"git credentials":          {".git-credentials", "https://u:Fjord-77@github.com\n", "git-credentials :1"},
		"template of helm":         {"templates/a.yaml", "{{- if .x }}\nkind: Secret\npassword: Fjord-77\ntoken: {{ .Values.token }}\n{{- end }}\n", "yaml password:3"},
		"ansible vault":            {"vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n62313365396662343061393464336163\n", ""},
		"sops":                     {"secrets.yaml", "password: ENC[AES256_GCM,data:abc,iv:x,tag:y,type:str]\nsops:\n  mac: ENC[AES256_GCM,data:q]\n", ""},
		"lock file":                {"package-lock.json", "{\"x\":{\"integrity\":\"sha512-q8Zr2Lw0Xv6Kt9Bnq8Zr2Lw0Xv6Kt9Bn==\",\"password\":\"Fjord-77\"}}", ""},
		"flaskenv":                 {"env.txt", "password=Fjord-77\n", ""},
		"commented out":            {".env", "A=1\n# DB_PASSWORD=Fjord-77\n#OLD_TOKEN='q8Zr2Lw0'\n# set PASSWORD=something like this one\n# NOTE=see the manual\n", "comment DB_PASSWORD:2, comment OLD_TOKEN:3, comment PASSWORD:4|comment DB_PASSWORD:2, comment OLD_TOKEN:3"},
		"alive in a template":      {".env.example", "TOKEN=" + token + "\nPASSWORD=secret\nKEY=your-key\nAPI_KEY=q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4P\nURL=postgres://user:pass@localhost/db\n# OTHER=" + token + "\n", "template TOKEN:1, template API_KEY:4, template OTHER:6"},
		"patch":                    {".env.patch", "diff --git a/.env b/.env\n--- a/.env\n+++ b/.env\n@@ -1 +1 @@\n-DB_PASSWORD=Fjord-77\n+DB_PASSWORD=Fjord-78\n", "copy DB_PASSWORD:5, copy DB_PASSWORD:6"},
		"copy":                     {".env~", "DB_PASSWORD=Fjord-77\n", "copy DB_PASSWORD:1"},
		"malformed":                {"fixtures/broken.env", "A='x\nDB_PASSWORD=Fjord-77\n", "malformed DB_PASSWORD:2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := scanTree(t, map[string]string{tc.file: tc.text}, migrate.ScanOptions{})
			var got []string
			for _, f := range r.NotMoved {
				got = append(got, fmt.Sprintf("%s %s:%d", f.Kind, f.Name, f.Line))
				if len(f.Secret) == 0 || f.Rule == "" || f.Advice == "" || f.File != tc.file {
					t.Errorf("incomplete: %+v", f)
				}
			}
			if s := strings.Join(got, ", "); !slices.Contains(strings.Split(tc.want, "|"), s) {
				t.Errorf("got %q, want %q", s, tc.want)
			}
			if text := fmt.Sprintf("%+v", r.NotMoved); strings.Contains(text, "Fjord") || strings.Contains(text, "q8Zr2Lw0") || strings.Contains(text, token) {
				t.Errorf("a value shows: %s", text)
			}
			if fatal := r.Fatal(); len(fatal) > 0 {
				t.Errorf("stands in the way: %v", fatal)
			}
		})
	}
}

// Names of .env files that programs read, and in which environment.
func TestEnvFileNames(t *testing.T) {
	for file, env := range map[string]string{
		".env": "development", ".env.production": "production", ".env-staging": "staging", ".env_prod": "production", ".env.staging.local": "staging", ".flaskenv": "development",
		".dev.vars": "development", ".dev.vars.staging": "staging", ".secrets": "development", "web.env": "web", "prod.env": "production", "env.production": "production",
		".envs/.production/.django": "production", ".envs/.local/.postgres": "development", "deploy/prod/.env": "production", ".env-foo": "foo",
		"web.env.production": "production", "prod.env.local": "production",
	} {
		r := scanTree(t, map[string]string{file: "DB_PASSWORD=Fjord-77\n"}, migrate.ScanOptions{})
		if len(r.Variables) != 1 || r.Variables[0].Definitions[0].Environment != env || !r.Variables[0].Secret() {
			t.Errorf("%s: %+v", file, r.Variables)
		}
	}
	for _, file := range []string{".env.example", ".env-example", "env.example", "web.env.example", ".env_sample", "sample.env", ".env.dist", ".env.template", ".env.schema"} {
		r := scanTree(t, map[string]string{file: "DB_PASSWORD=Fjord-77\n"}, migrate.ScanOptions{})
		if len(r.Variables) != 1 || r.Variables[0].Secret() || r.Variables[0].Definitions[0].Kind != "template" {
			t.Errorf("%s: %+v", file, r.Variables)
		}
	}
	for _, file := range []string{".env.vault", "environment", ".envrc.d", "x.environment", "x.env.d.txt", ".secrets.baseline", "development", ".env.gpg"} {
		if r := scanTree(t, map[string]string{file: "DB_PASSWORD=Fjord-77\n"}, migrate.ScanOptions{}); len(r.Variables) != 0 {
			t.Errorf("%s: %+v", file, r.Variables)
		}
	}
}

// What no plan can name, or cannot be read as a file, is told; it stops nothing, and
// what is odd in a name does not reach a terminal or a path in Vault.
func TestOddNames(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, ".env.fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := scanTree(t, map[string]string{
		"latin\xe9/.env": "A_TOKEN=Fjord-77\n", "sp ace.env": "B_TOKEN=Fjord-78\n", "quote\"'.env": "C_TOKEN=Fjord-79\n", "esc\x1b[31m.env": "D='x\n", "new\nline/.env": "E_TOKEN=Fjord-80\n",
	}, migrate.ScanOptions{Root: dir})
	said := ""
	for _, p := range r.Problems {
		said += p.String() + "\n"
	}
	for _, want := range []string{".env.fifo: a pipe", `"latin\xe9/.env": a path that is not UTF-8`, `"esc\x1b[31m.env":1: a quoted value`} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
	if len(r.NotMoved) != 1 || r.NotMoved[0].Name != "A_TOKEN" || r.NotMoved[0].Advice != "rename the file, and plan again" || len(r.Fatal()) > 0 {
		t.Errorf("not moved: %+v; %v", r.NotMoved, r.Fatal())
	}
	p, err := migrate.NewPlan(r, "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.ParsePlan("F", p.Encode()); err != nil || len(p.Variable) != 3 {
		t.Errorf("%d variables, %v", len(p.Variable), err)
	}
}

// One odd file is a note. A malformed file that programs read stops everything.
func TestOddFiles(t *testing.T) {
	for name, tc := range map[string]struct {
		file, text string
		fatal      bool
	}{
		"the file":                   {".env", "A='x\n", true},
		"of an environment":          {"api/.env.production", "A='x\n", true},
		"by another usual name":      {".flaskenv", "A='x\n", true},
		"with a NUL":                 {".env", "A=\x00\n", true},
		"a patch":                    {".env.patch", "--- a\n+++ b\n@@ -1 +1 @@\n-A='\n+B\n", false},
		"a patch by another name":    {"change.env", "diff --git a/x b/x\n--- a\n+++ b\n@@ -1 +1 @@\n-A='\n+B C\n", false},
		"a fixture":                  {"broken.env", "A='x\n", false},
		"a fixture by the name":      {"tests/fixtures/.env", "A='x\n", false},
		"a binary":                   {"photo.env", "\x89PNG\x00\x01", false},
		"a copy":                     {".env.bak", "A='x\n", false},
		"another copy":               {".env.production~", "A='x\n", false},
		"a template":                 {".env.example", "A='x\n", false},
		"nonsense":                   {".env.broken", "just text\n", false},
		"not UTF-8":                  {"latin.env", "A=\xe9\n", false},
		"in an ignored folder":       {"build/.env", "A='x\n", false},
		"in a virtual environment":   {".venv39/.env", "A='x\n", false},
		"in node_modules":            {"web/node_modules/x/.env", "A='x\n", false},
		"in a vendored tree":         {"vendor/x/.env", "A='x\n", false},
		"in somebody's site":         {"py/lib/site-packages/x/.env", "A='x\n", false},
		"named by a unit, though":    {"api.env", "A='x\n", true},
		"excluded":                   {"legacy/.env", "A='x\n", false},
		"excluded by its own name":   {"old/.env.legacy", "A='x\n", false},
		"a folder by that name":      {".env/x.txt", "A='x\n", false},
		"huge and by no usual name":  {"dump.env", strings.Repeat("x", 2<<20), false},
		"an environment of its own":  {"conda/.env", "A='x\n", false},
		"a git repository within it": {"sub/.git/.env", "A='x\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			needsGit(t)
			gitRun(t, dir, "init", "-q")
			files := map[string]string{
				".gitignore": "build/\n.env\n", ".venv39/pyvenv.cfg": "home = /usr\n", "vendor/modules.txt": "# x\n", "conda/conda-meta/history": "", "a.service": "[Service]\nEnvironmentFile=api.env\n",
				"prod.env": "DB_PASSWORD=Fjord-77\n", tc.file: tc.text,
			}
			if tc.file == ".env/x.txt" {
				delete(files, ".env")
			}
			r := scanTree(t, files, migrate.ScanOptions{Root: dir, Exclude: []string{"legacy", "*.legacy"}})
			if got := len(r.Fatal()) > 0; got != tc.fatal {
				t.Errorf("fatal: %t, want %t: %v", got, tc.fatal, r.Problems)
			}
			plan, err := migrate.NewPlan(r, "app")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(plan.Variable, func(e migrate.Entry) bool { return e.File == "prod.env" && e.Kind == migrate.KindKV }) {
				t.Errorf("the other file is not planned: %+v", plan.Variable)
			}
			for _, e := range plan.Variable {
				if e.File == tc.file {
					t.Errorf("%s is planned", tc.file)
				}
			}
		})
	}
}

// What is not looked at is said, where it may hold a secret.
func TestScanSaysWhatItDidNotLookAt(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "real", "DB_PASSWORD=Fjord-77\n")
	dir := t.TempDir()
	for link, to := range map[string]string{".env": filepath.Join(outside, "real"), "a/.env": "../shared.env", "b/.env": "nowhere", "c/.env": "plain.txt"} {
		write(t, dir, filepath.Dir(link)+"/plain.txt", "x")
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	r := scanTree(t, map[string]string{"shared.env": "A=1\n", "x.legacy.env": "A=1\n"}, migrate.ScanOptions{Root: dir, Exclude: []string{"x.*"}})
	var got []string
	for _, p := range r.Problems {
		got = append(got, p.String())
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{".env: a symbolic link, which is not followed: the file that it leads to is outside", `a/.env: a symbolic link, which is not followed: the file that it leads to, "shared.env", is looked at`,
		"b/.env: a symbolic link, which is not followed: it leads nowhere", `"c/plain.txt", is not named like a .env file`, "x.legacy.env: excluded: not looked at"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in %s", want, all)
		}
	}
	for _, bad := range []string{"", "[", "/etc"} {
		if _, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Exclude: []string{bad}}); err == nil {
			t.Errorf("exclude %q must be refused", bad)
		}
	}
}

// Every reader of files ends, whatever it is given.
func FuzzElsewhere(f *testing.F) {
	c, err := migrate.NewClassifier()
	if err != nil {
		f.Fatal(err)
	}
	names := []string{"profiles.yml", "a.ipynb", "a.py", "prod.tfvars", "main.tf", ".netrc", ".pgpass", "a.ini", "a.toml", "appsettings.json", "application.yml", "k.yaml", "docker-compose.yml", "web.config", "run.sh", ".npmrc", "a.json", ".env.example", ".env.bak", "a.key"}
	for i, text := range []string{"a: {b: [1, &x {password: y}]}\n--- *x\n", `{"cells":[{"source":["a='b'"]}]}`, "password = 'x'\n", "a = \"b\" # c\n", "machine h password\n", "a:b:c:d\\:e:f\n", "[a]\nb=c", `{"name":{"value":1},"value":"x"`, "<a b=\"c\">d</a>", "//x/:_authToken=y\n", "a -pX --b=c -u d:e\n", "# A=b\n+C=d\n"} {
		f.Add(i, []byte(text))
	}
	f.Fuzz(func(t *testing.T, i int, data []byte) {
		for _, name := range []string{names[uint(i)%uint(len(names))]} {
			for _, found := range migrate.Look(c, name, data) {
				if found.Line < 1 || found.Line > strings.Count(string(data), "\n")+1 || len(found.Secret) == 0 {
					t.Errorf("%s: %+v", name, found)
				}
			}
		}
	})
}
