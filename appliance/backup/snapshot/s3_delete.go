package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// Delete implements Destination. In a bucket with versions a plain DELETE only
// hides an object, even a locked one, and frees nothing: here every version is
// removed by its id, after none of them has turned out to be locked.
func (s *S3) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := s.delete(ctx, s.prefix+name); err != nil {
		return s.fail("delete", name, err)
	}
	return nil
}

func (s *S3) delete(ctx context.Context, key string) error {
	versioned, err := s.hasVersions(ctx)
	if err != nil {
		return err
	}
	if !versioned {
		return s.core.RemoveObject(ctx, s.cfg.Bucket, key, minio.RemoveObjectOptions{})
	}
	versions, err := s.versions(ctx, key)
	if err != nil {
		return err
	}
	var latest time.Time
	for _, v := range versions {
		if v.IsDeleteMarker {
			continue
		}
		until, err := s.lockedUntil(ctx, key, v.VersionID)
		if err != nil {
			return err
		}
		if until.After(s.cfg.Now()) {
			return fmt.Errorf("%w until %s", ErrLocked, until.UTC().Format(time.RFC3339))
		}
		if until.After(latest) {
			latest = until
		}
	}
	for _, v := range versions {
		opts := minio.RemoveObjectOptions{VersionID: v.VersionID}
		err := s.core.RemoveObject(ctx, s.cfg.Bucket, key, opts)
		if err != nil && !latest.IsZero() && errors.Is(s3Error(err), ErrDenied) {
			// The store's clock is behind ours.
			return fmt.Errorf("%w until %s: %w", ErrLocked, latest.UTC().Format(time.RFC3339), err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *S3) versions(ctx context.Context, key string) ([]minio.ObjectInfo, error) {
	var out []minio.ObjectInfo
	opts := minio.ListObjectsOptions{Prefix: key, Recursive: true, WithVersions: true}
	for v := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, opts) {
		if v.Err != nil {
			return nil, v.Err
		}
		if v.Key == key { // not what merely begins like it
			out = append(out, v)
		}
	}
	return out, ctx.Err()
}

// listVersions is List with what a plain DELETE has hidden: of each object its newest
// version, which object lock may have kept.
func (s *S3) listVersions(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	type object struct {
		newest  minio.ObjectInfo
		deleted bool
	}
	all := map[string]object{}
	opts := minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true, WithVersions: true}
	for v := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, opts) {
		if v.Err != nil {
			return nil, s.fail("list", prefix, v.Err)
		}
		o := all[v.Key]
		o.deleted = o.deleted || v.IsDeleteMarker && v.IsLatest
		if !v.IsDeleteMarker && (o.newest.Key == "" || v.IsLatest || v.LastModified.After(o.newest.LastModified)) {
			o.newest = v
		}
		all[v.Key] = o
	}
	if err := ctx.Err(); err != nil {
		return nil, s.fail("list", prefix, err)
	}
	var out []ObjectInfo
	for key, o := range all {
		name, ok := strings.CutPrefix(key, s.prefix)
		if !ok || o.newest.Key == "" || checkName(name) != nil {
			continue
		}
		info := s.info(name, o.newest)
		info.Hidden = o.deleted
		out = append(out, info)
	}
	sortObjects(out)
	return out, nil
}

// hidden is the newest version of an object that is not there, as gone says, since
// somebody has deleted it; empty where there is none.
func (s *S3) hidden(ctx context.Context, key string, gone error) string {
	if gone == nil || !errors.Is(s3Error(gone), ErrNotFound) {
		return ""
	}
	if versioned, err := s.hasVersions(ctx); err != nil || !versioned {
		return ""
	}
	versions, err := s.versions(ctx, key)
	if err != nil {
		return ""
	}
	var newest minio.ObjectInfo
	for _, v := range versions {
		if !v.IsDeleteMarker && (newest.Key == "" || v.LastModified.After(newest.LastModified)) {
			newest = v
		}
	}
	return newest.VersionID
}

// hasVersions tells whether the bucket keeps former versions, or once did.
func (s *S3) hasVersions(ctx context.Context) (bool, error) {
	s.versioning.Lock()
	defer s.versioning.Unlock()
	if s.versioned != nil {
		return *s.versioned, nil
	}
	v, err := s.core.GetBucketVersioning(ctx, s.cfg.Bucket)
	if err != nil && !unsupported(err) {
		return false, fmt.Errorf("ask for the bucket's versioning: %w", err)
	}
	has := err == nil && (v.Enabled() || v.Suspended())
	s.versioned = &has
	return has, nil
}

// forever stands for a legal hold, which has no end.
var forever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// lockedUntil tells when object lock lets a version go; zero where nothing
// holds it.
func (s *S3) lockedUntil(ctx context.Context, key, version string) (time.Time, error) {
	if has, err := s.hasVersions(ctx); err != nil || !has {
		return time.Time{}, err // object lock needs versions
	}
	// HEAD tells it in one request where the key may know it.
	oi, err := s.core.StatObject(ctx, s.cfg.Bucket, key, minio.StatObjectOptions{VersionID: version})
	if err != nil {
		return time.Time{}, err
	}
	if strings.EqualFold(oi.Headers.Get("X-Amz-Object-Lock-Legal-Hold"), string(minio.LegalHoldEnabled)) {
		return forever, nil
	}
	if text := oi.Headers.Get("X-Amz-Object-Lock-Retain-Until-Date"); text != "" {
		until, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return time.Time{}, fmt.Errorf("the object's retention: %w", err)
		}
		return until, nil
	}
	_, until, err := s.core.GetObjectRetention(ctx, s.cfg.Bucket, key, version)
	if err != nil && !unsupported(err) {
		return time.Time{}, fmt.Errorf("ask for the object's retention: %w", err)
	}
	hold, err := s.core.GetObjectLegalHold(ctx, s.cfg.Bucket, key, minio.GetObjectLegalHoldOptions{VersionID: version})
	if err != nil && !unsupported(err) {
		return time.Time{}, fmt.Errorf("ask for the object's legal hold: %w", err)
	}
	switch {
	case hold != nil && *hold == minio.LegalHoldEnabled:
		return forever, nil
	case until != nil:
		return *until, nil
	}
	return time.Time{}, nil
}
