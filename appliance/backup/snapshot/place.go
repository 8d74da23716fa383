package snapshot

import (
	"fmt"

	"strongroom.example/config"
)

// OpenPlace opens a place for snapshots as it is configured. read gives the content of
// the credential that a bucket names; it is wiped afterwards.
func OpenPlace(to config.BackupTo, read func(name string) ([]byte, error)) (Destination, error) {
	if to.Type == config.BackupDir {
		return NewDir(to.Path)
	}
	data, err := read(to.Credentials)
	if err != nil {
		return nil, fmt.Errorf("key pair of the bucket %q: %w", to.Bucket, err)
	}
	defer clear(data)
	access, secret, err := KeyPair(to.Credentials, data)
	if err != nil {
		return nil, fmt.Errorf("key pair of the bucket %q: %w", to.Bucket, err)
	}
	return NewS3(S3Config{
		Endpoint: to.Endpoint, Region: to.Region, Bucket: to.Bucket, Prefix: to.Prefix, CAFile: to.CAFile,
		AccessKey: access, SecretKey: secret, LockFor: to.LockFor, LockMode: to.LockMode,
	})
}

// OpenPlaces opens the places of a configuration, as OpenPlace does each.
func OpenPlaces(places []config.BackupTo, read func(name string) ([]byte, error)) ([]Destination, error) {
	var out []Destination
	for i, to := range places {
		d, err := OpenPlace(to, read)
		if err != nil {
			return nil, fmt.Errorf("backup.to[%d]: %w", i, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// KeyPair reads the credential of a bucket. Its error quotes nothing of data.
func KeyPair(file string, data []byte) (access, secret string, err error) {
	return config.DecodePair(file, data, "access_key", "secret_key")
}
