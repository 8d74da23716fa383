package migrate

import (
	"fmt"
	"regexp"
	"strings"
)

// composite is a kind of value that holds a secret beside what is none, and what its
// readers do with the secret.
type composite struct {
	variable *regexp.Regexp // of the variable; nil for any
	value    *regexp.Regexp // nil for any
	// by is the variable in which the readers take the secret by itself, in terms of
	// the groups of variable; and who they are.
	by, who string
	// whole is why none does.
	whole string
}

// composites, the first that fits. Sources: postgresql.org/docs/current/libpq-envars.html, node-postgres.com/features/connecting,
// pkg.go.dev/github.com/jackc/pgx/v5/pgconn; docs.spring.io/spring-boot/appendix/application-properties, quarkus.io/guides/datasource,
// keycloak.org/server/all-config, documentation.red-gate.com/flyway, docs.liquibase.com (environment variables);
// dev.mysql.com/doc/refman/8.4/en/environment-variables.html, redis.io/docs/latest/develop/tools/cli,
// learn.microsoft.com/azure/storage/common/storage-configure-connection-string
var composites = []composite{
	{variable: regexp.MustCompile(`^(SPRING_(?:DATASOURCE|R2DBC|FLYWAY|LIQUIBASE)|FLYWAY|LIQUIBASE_COMMAND|KC_DB)_URL$`), by: "${1}_PASSWORD", who: "it has a property for it"},
	{variable: regexp.MustCompile(`^(QUARKUS_DATASOURCE(?:_.+)?)_(?:JDBC|REACTIVE)_URL$`), by: "${1}_PASSWORD", who: "it has a property for it"},
	{variable: regexp.MustCompile(`^(SPRING_RABBITMQ)_ADDRESSES$`), by: "${1}_PASSWORD", who: "it has a property for it"},
	{value: regexp.MustCompile(`^\s*(?:postgres(?:ql)?(?:\+[a-z0-9_]+)?://|(?:(?:host|hostaddr|port|user|dbname|sslmode|password)\s*=\s*(?:'[^']*'|\S*)\s*){2,}$)`),
		by: "PGPASSWORD", who: "libpq, psycopg, asyncpg, pg of Node, pgx"},
	{value: regexp.MustCompile(`^(?:mysql|mariadb)[+:a-z]*//|@(?:tcp|unix)\(`), whole: "drivers of MySQL and MariaDB take the password out of it alone (MYSQL_PWD is for the programs mysql and mysqldump)"},
	{value: regexp.MustCompile(`^(?:rediss?|valkeys?|sentinel|redis\+[a-z]+)://|^[\w.-]+:\d+,.*password=`), whole: "clients of Redis take the password out of it alone (REDISCLI_AUTH is for redis-cli)"},
	{value: regexp.MustCompile(`^amqps?://`), whole: "clients of AMQP take the password out of it alone"},
	{value: regexp.MustCompile(`^mongodb(?:\+srv)?://`), whole: "drivers of MongoDB take the password out of it alone, or from an argument in the code"},
	{value: regexp.MustCompile(`^(?:smtps?|submission|mailto|imaps?)[+a-z]*://`), whole: "a program that takes a URL for its mail has the password from nowhere else"},
	{value: regexp.MustCompile(`^jdbc:`), whole: "a driver of JDBC takes the password out of it, or from an argument; where the program has a setting of its own for it, write it there"},
	{value: regexp.MustCompile(`(?i)\bEndpoint=sb://|\bSharedAccessKey=`), whole: "the SDK takes the string as one; without a key in it it needs an identity (DefaultAzureCredential) and the name of the host"},
	{value: regexp.MustCompile(`(?i)\b(?:AccountKey|SharedAccessSignature)=`), whole: "the SDK takes the string as one (AZURE_STORAGE_KEY is for the program az); without a key in it it needs an identity (DefaultAzureCredential) and the URL of the account"},
	{value: regexp.MustCompile(`(?i)(?:^|;)\s*(?:Server|Data Source|Host|Driver|DSN|Address|Addr|Provider)\s*=.*;`), whole: "drivers of ADO.NET and ODBC take the password out of it alone, or log in by an identity without one"},
	{value: regexp.MustCompile(`"type"\s*:\s*"(?:service_account|authorized_user|external_account)"`), whole: "the client reads the document as one, and its parts belong to each other"},
	{value: regexp.MustCompile(`^\s*[\[{]`), whole: "its program reads the document as one"},
	{value: regexp.MustCompile(`^(?:https?|wss?|nats|ldaps?|ftps?|sftp|cloudinary|clickhouse|snowflake|databricks|oracle|mssql|sqlserver)[+a-z]*://`), whole: "its client takes the URL as one"},
}

// asWhole says of a value with secret parts in which variable clients read the secret by
// itself, and which do; or why it goes to Vault as it is. Nothing in it is of the value.
func asWhole(variable, value string, found []string) (by, why string) {
	if len(found) > 1 {
		return "", "its parts are several secrets, which belong together"
	}
	for _, c := range composites {
		if c.variable != nil && !c.variable.MatchString(variable) || c.value != nil && !c.value.MatchString(value) {
			continue
		}
		if c.by == "" {
			return "", c.whole
		}
		if c.variable != nil {
			return c.variable.ReplaceAllString(variable, c.by), c.who
		}
		return c.by, c.who
	}
	return "", "no client is known here that would take the part from elsewhere"
}

// Composite are the variables that go to Vault whole, by the plan, with parts that
// are no secret: a program asks for the variable, and nothing puts parts together
// for it in every reader's way.
func (p *Plan) Composite(r *Report) (out []Problem) {
	for _, v := range r.Variables {
		for _, d := range v.Definitions {
			i := p.index(d.File, v.Name)
			if len(d.Parts) == 0 || i < 0 || p.Variable[i].Kind != KindKV {
				continue
			}
			why := fmt.Sprintf("%s holds the %s, and goes to Vault whole", v.Name, strings.Join(d.Parts, ", the "))
			if d.ByPart != "" {
				why += fmt.Sprintf("; by part: take it out there and write it, without %%-escapes, as %s beside it, if what reads it takes that (%s), and plan again", d.ByPart, d.Whole)
			} else {
				why += ": " + d.Whole
			}
			out = append(out, Problem{File: d.File, Line: d.Line, Why: why})
		}
	}
	sortProblems(out)
	return out
}
