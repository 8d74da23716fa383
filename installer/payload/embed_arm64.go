package payload

import "embed"

//go:embed bin/arm64/*
var embedded embed.FS

const folder = "bin/arm64"
