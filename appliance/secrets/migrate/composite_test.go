package migrate_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// A value of many parts is taken apart, its secrets are counted, and the plan says in
// which variable clients take the secret by itself, or why it goes to Vault whole.
func TestComposites(t *testing.T) {
	const pw = "inv-77-pass"
	sa := `{"type": "service_account", "project_id": "p", "private_key_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d", "private_key": "-----BEGIN PRIVATE ` + `KEY-----\nMIIEvQ` + pw + `\n-----END PRIVATE KEY-----\n", "client_email": "a@p.iam.gserviceaccount.com"}`
	key := strings.Repeat("Ab1+", 21) + "ab=="
	for _, tt := range []struct{ name, value, part, says string }{
		{"A_URL", "postgres://app:" + pw + "@db.example:5432/app", "password of the URL", "as PGPASSWORD"},
		{"A_URL", "postgresql+psycopg://app:" + pw + "@db.example/app", "password of the URL", "as PGPASSWORD"},
		{"A_URL", "postgresql://h/d?user=u&password=" + pw, "parameter password of the URL", "as PGPASSWORD"},
		{"A_DSN", "host=db user=app password=" + pw, "password of the connection string", "as PGPASSWORD"},
		{"A_DSN", "host='d b' password='inv 79'", "password of the connection string", "as PGPASSWORD"},
		{"SPRING_DATASOURCE_URL", "jdbc:postgresql://h/d?user=u&password=" + pw, "parameter password of the URL", "as SPRING_DATASOURCE_PASSWORD"},
		{"QUARKUS_DATASOURCE__USERS__JDBC_URL", "jdbc:mysql://h/d?user=u&password=" + pw, "parameter password of the URL", "as QUARKUS_DATASOURCE__USERS__PASSWORD"},
		{"KC_DB_URL", "jdbc:postgresql://h/d?user=u&password=" + pw, "parameter password of the URL", "as KC_DB_PASSWORD"},
		{"SPRING_RABBITMQ_ADDRESSES", "amqp://u:" + pw + "@a:5672,amqp://u:" + pw + "@b:5672", "password of the URL", "as SPRING_RABBITMQ_PASSWORD"},
		{"A_URL", "mysql://app:" + pw + "@h/d", "password of the URL", "MySQL and MariaDB"},
		{"A_URL", "mysql+pymysql://app:inv%4077%2fpass@h/d?charset=utf8mb4", "password of the URL", "MySQL and MariaDB"},
		{"A_URL", "mariadb+mariadbconnector://app:" + pw + "@h/d", "password of the URL", "MySQL and MariaDB"},
		{"A_DSN", "app:" + pw + "@tcp(h:3306)/d?parseTime=true", "password of the connection string", "MySQL and MariaDB"},
		{"A_URL", "redis://:" + pw + "@h:6379/0", "password of the URL", "Redis"},
		{"A_URL", "rediss://default:" + pw + "@h:6380", "password of the URL", "Redis"},
		{"A_URL", "redis+sentinel://:" + pw + "@h:26379/mymaster/0", "password of the URL", "Redis"},
		{"A_URL", "valkey://:" + pw + "@h:6379", "password of the URL", "Redis"},
		{"A_URL", "h.redis.cache.windows.net:6380,password=" + pw + ",ssl=True,abortConnect=False", "password of the connection string", "Redis"},
		{"A_URL", "amqps://app:" + pw + "@h/%2fapp", "password of the URL", "AMQP"},
		{"A_URL", "mongodb+srv://app:" + pw + "@h/?retryWrites=true&w=majority", "password of the URL", "MongoDB"},
		{"A_URL", "mongodb://app:" + pw + "@h1:27017,h2:27017,h3/d?replicaSet=r", "password of the URL", "MongoDB"},
		{"A_URL", "smtp://app%40example.com:" + pw + "@h:587", "password of the URL", "mail"},
		{"A_URL", "smtp+tls://app:" + pw + "@h:587", "password of the URL", "mail"},
		{"A_URL", "jdbc:mysql://h/d?user=u&password=" + pw, "parameter password of the URL", "JDBC"},
		{"A_URL", "jdbc:sqlserver://h:1433;user=u;password={" + pw + ";};encrypt=true", "password of the connection string", "JDBC"},
		{"A_URL", "jdbc:oracle:thin:app/" + pw + "@h:1521:x", "password of the URL", "JDBC"},
		{"A_URL", "jdbc:db2://h:50000/d:user=u;password=" + pw + ";", "password of the connection string", "JDBC"},
		{"A_URL", "jdbc:redshift://h:5439/d;UID=u;PWD=" + pw, "pwd of the connection string", "JDBC"},
		{"A_DSN", "Driver={ODBC Driver 18 for SQL Server};Server=tcp:h,1433;UID=u;PWD={" + pw + "};Encrypt=yes", "pwd of the connection string", "ODBC"},
		{"A_DSN", "DSN=shop;UID=u;PWD=" + pw, "pwd of the connection string", "ODBC"},
		{"A_DSN", "mssql+pyodbc:///?odbc_connect=" + url.QueryEscape("DRIVER={ODBC Driver 18};SERVER=h;UID=u;PWD="+pw), "pwd of the connection string", "its client takes the URL as one"},
		{"A_DSN", "Server=h;Database=d;User Id=u;Password=" + pw + ";", "password of the connection string", "ADO.NET"},
		{"A_DSN", `Data Source=h;Persist Security Info=True;User ID=u;Password="` + pw + `;x"`, "password of the connection string", "ADO.NET"},
		{"A_DSN", "Host=h;Username=u;Password=" + pw, "password of the connection string", "ADO.NET"},
		{"A_DSN", `metadata=res://*/M.csdl;provider=System.Data.SqlClient;provider connection string="data source=h;user id=u;password=` + pw + `"`, "password of the connection string", "ADO.NET"},
		{"A_CONN", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=" + key + ";EndpointSuffix=core.windows.net", "account_key of the connection string", "AZURE_STORAGE_KEY is for the program az"},
		{"A_CONN", "AccountEndpoint=https://a.documents.azure.com:443/;AccountKey=" + key + ";", "account_key of the connection string", "DefaultAzureCredential"},
		{"A_CONN", "BlobEndpoint=https://a.blob.core.windows.net/;SharedAccessSignature=sv=2022-11-02&ss=b&sig=q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4Pq8Zr2Lw0Xv6Kt9Bn3Yc%3D", "signature of the connection string", "DefaultAzureCredential"},
		{"A_CONN", "Endpoint=sb://a.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=" + key + ";EntityPath=x", "access_key of the connection string", "identity"},
		{"A_CONN", "HostName=a.azure-devices.net;SharedAccessKeyName=iothubowner;SharedAccessKey=" + key, "access_key of the connection string", "identity"},
		{"A_CONN", "Endpoint=https://a.azconfig.io;Id=ab-l0-s0:Zm9v;Secret=" + key, "secret of the connection string", "no client is known"},
		{"A_CONN", "endpoint=https://a.communication.azure.com/;accesskey=" + key, "access_key of the connection string", "no client is known"},
		{"A_JSON", sa, "JSON: private_key", "document as one"},
		{"A_JSON", base64.StdEncoding.EncodeToString([]byte(sa)), "JSON: private_key", "goes to Vault whole"},
		{"A_JSON", `{"conn_type": "mysql", "host": "h", "password": "` + pw + `"}`, "JSON: password", "document as one"},
		{"A_JSON", `{"accessKeyId": "AKIDAAAAAAAA1234", "secretAccessKey": "` + pw + `"}`, "JSON: access_key", "several secrets"},
		{"A_JAAS", `org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="` + pw + `";`, "password of the connection string", "no client is known"},
		{"A_URL", "nats://app:" + pw + "@h:4222", "password of the URL", "its client takes the URL as one"},
		{"A_URL", "https://elastic:" + pw + "@h:9200", "password of the URL", "its client takes the URL as one"},
		{"A_URL", "cloudinary://123456789012345:" + pw + "@cloud", "password of the URL", "its client takes the URL as one"},
		{"A_URL", "tcp://h:9000?username=u&password=" + pw, "parameter password of the URL", "no client is known"},
		{"A_URL", "sqs://AKIDAAAA:" + pw + "@", "password of the URL", "no client is known"},
		{"A_URL", "postgres://app:" + pw + "@h/d?sslpassword=inv-78-pass", "the parameter password of the URL", "several secrets"},
	} {
		r := scanTree(t, map[string]string{".env": tt.name + "='" + strings.ReplaceAll(tt.value, "'", `\'`) + "'\n"}, migrate.ScanOptions{})
		p, err := migrate.NewPlan(r, "app")
		if err != nil {
			t.Fatal(err)
		}
		said := fmt.Sprint(p.Composite(r))
		if !strings.Contains(said, tt.part) || !strings.Contains(said, tt.says) || !strings.Contains(said, "goes to Vault whole") {
			t.Errorf("%s=%s: %s", tt.name, tt.value, said)
		}
		if strings.Contains(said, "inv") || strings.Contains(said, key) {
			t.Errorf("a value shows: %s", said)
		}
	}
}
