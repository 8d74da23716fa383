package payload

import "embed"

//go:embed bin/amd64/*
var embedded embed.FS

const folder = "bin/amd64"
