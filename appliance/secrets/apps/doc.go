// Package apps brings a Vault to what apps.toml says: policies, AppRoles,
// database connections and roles, API keys, auth methods. It plans first, then
// converges, and changes or removes only what the same manifest has made.
//
// It is not the schema (config), and it writes no secret's value: those come
// from people and from the migration.
package apps
