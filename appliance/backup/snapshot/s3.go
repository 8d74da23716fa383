package snapshot

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the S3 protocol's checksum, not ours
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

// S3 is a Destination in a bucket of an S3-compatible store, such as Hetzner
// Object Storage. It assumes little of the store: no conditional writes, no
// checksum headers newer than Content-MD5, and no honesty (see check).
type S3 struct {
	core   *minio.Core
	cfg    S3Config
	name   string
	prefix string // "" or ending in "/"

	versioning sync.Mutex
	versioned  *bool // nil until asked
}

var (
	_ mover       = (*S3)(nil)
	_ Destination = (*S3)(nil)
	_ Sweeper     = (*S3)(nil)
)

// Name is "s3:" with host, bucket and prefix.
func (s *S3) Name() string { return s.name }

// Moved implements mover.
func (s *S3) Moved() int64 { return s.cfg.moved.Load() }

func (s *S3) fail(verb, name string, err error) error {
	return fmt.Errorf("%s: %s %q: %w", s.name, verb, name, s3Error(err))
}

// tailSize is how much of an object's end is read back after an upload, in
// bytes.
const tailSize = 64 << 10

// upload is what is known of an object under way.
type upload struct {
	key   string
	size  int64
	sum   []byte // SHA-256 of all of it, once it has ended
	tail  []byte // its last tailSize bytes
	etags []byte // MD5 sums of the parts, one after the other
	parts []minio.CompletePart
	whole string // the MD5 sum where it is not in parts, in hex
}

// Put implements Destination. Large objects go up in parts, of which one at a
// time is in memory.
func (s *S3) Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error) {
	if err := checkName(name); err != nil {
		return ObjectInfo{}, err
	}
	switch info, err := s.Stat(ctx, name); {
	case err == nil && info.Hidden: // a new version of it
	case err == nil:
		return ObjectInfo{}, fmt.Errorf("%s: put %q: %w", s.name, name, ErrExists)
	case !errors.Is(err, ErrNotFound):
		return ObjectInfo{}, err
	}
	up := &upload{key: s.prefix + name}
	if err := s.upload(ctx, up, r); err != nil {
		return ObjectInfo{}, s.fail("put", name, err)
	}
	info, err := s.check(ctx, name, up)
	if err != nil {
		s.discard(ctx, name)
		return ObjectInfo{}, s.fail("put", name, err)
	}
	return info, nil
}

func (s *S3) upload(ctx context.Context, up *upload, r io.Reader) error {
	buf := make([]byte, s.cfg.PartSize)
	all := sha256.New()
	defer func() { up.sum = all.Sum(nil) }()

	n, end, err := readPart(r, buf)
	if err != nil {
		return err
	}
	if end {
		all.Write(buf[:n])
		return s.putWhole(ctx, up, buf[:n])
	}
	id, err := s.core.NewMultipartUpload(ctx, s.cfg.Bucket, up.key, s.putOptions())
	if err != nil {
		return err
	}
	for n > 0 {
		all.Write(buf[:n])
		err := s.putPart(ctx, up, id, buf[:n])
		if n = 0; err == nil && !end {
			n, end, err = readPart(r, buf)
		}
		// The reader's fault, a snapshot that turned out bad among them,
		// discards what went up so far.
		if err != nil {
			s.abort(ctx, up.key, id)
			return err
		}
	}
	// The commit point.
	if _, err := s.core.CompleteMultipartUpload(ctx, s.cfg.Bucket, up.key, id, up.parts, s.putOptions()); err != nil {
		// The answer may have been lost after the store had done it.
		s.abort(ctx, up.key, id)
		s.discard(ctx, strings.TrimPrefix(up.key, s.prefix))
		return err
	}
	return nil
}

// readPart fills buf. end is true when r has ended, and then n may be less than
// all. It is not io.ReadFull, whose io.ErrUnexpectedEOF at a regular end is also
// what a broken connection gives: here only io.EOF ends an object.
func readPart(r io.Reader, buf []byte) (n int, end bool, err error) {
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func (s *S3) putWhole(ctx context.Context, up *upload, data []byte) error {
	sum := md5.Sum(data) //nolint:gosec // see the import
	up.size, up.whole = int64(len(data)), hex.EncodeToString(sum[:])
	up.keepTail(data)
	hash := sha256.Sum256(data)
	_, err := s.core.PutObject(ctx, s.cfg.Bucket, up.key, bytes.NewReader(data), up.size,
		base64.StdEncoding.EncodeToString(sum[:]), hex.EncodeToString(hash[:]), s.putOptions())
	if err != nil {
		s.discard(ctx, strings.TrimPrefix(up.key, s.prefix))
	}
	return err
}

func (s *S3) putPart(ctx context.Context, up *upload, id string, data []byte) error {
	sum := md5.Sum(data) //nolint:gosec // see the import
	hash := sha256.Sum256(data)
	number := len(up.parts) + 1
	part, err := s.core.PutObjectPart(ctx, s.cfg.Bucket, up.key, id, number, bytes.NewReader(data), int64(len(data)),
		minio.PutObjectPartOptions{
			Md5Base64: base64.StdEncoding.EncodeToString(sum[:]),
			Sha256Hex: hex.EncodeToString(hash[:]),
		})
	if err != nil {
		return fmt.Errorf("part %d: %w", number, err)
	}
	up.parts = append(up.parts, minio.CompletePart{PartNumber: number, ETag: part.ETag})
	up.etags = append(up.etags, sum[:]...)
	up.size += int64(len(data))
	up.keepTail(data)
	return nil
}

func (up *upload) keepTail(data []byte) {
	if len(data) >= tailSize {
		up.tail = append(up.tail[:0], data[len(data)-tailSize:]...)
		return
	}
	up.tail = append(up.tail, data...)
	if n := len(up.tail) - tailSize; n > 0 {
		up.tail = append(up.tail[:0], up.tail[n:]...)
	}
}

// etag is what S3 gives as the ETag of an unencrypted object.
func (up *upload) etag() string {
	if up.whole != "" {
		return up.whole
	}
	sum := md5.Sum(up.etags) //nolint:gosec // see the import
	return fmt.Sprintf("%x-%d", sum, len(up.parts))
}

func (s *S3) putOptions() minio.PutObjectOptions {
	o := minio.PutObjectOptions{
		ContentType: "application/octet-stream",
		// Hetzner's Ceph refuses the newer checksum headers.
		SendContentMd5: true,
	}
	if s.cfg.LockFor > 0 {
		o.Mode = minio.RetentionMode(s.cfg.LockMode)
		o.RetainUntilDate = s.cfg.Now().UTC().Add(s.cfg.LockFor)
	}
	return o
}

// check asks the store what it has. A 200 alone proves nothing: stores have
// answered it and kept less. Size and end are compared always; the whole object
// is read back where its ETag is not the sum of its parts, as in buckets with
// server-side encryption.
func (s *S3) check(ctx context.Context, name string, up *upload) (ObjectInfo, error) {
	oi, err := s.core.StatObject(ctx, s.cfg.Bucket, up.key, minio.StatObjectOptions{})
	if err != nil {
		return ObjectInfo{}, fmt.Errorf("look at the stored object: %w", s.explain(ctx, err))
	}
	if oi.Size < up.size {
		return ObjectInfo{}, fmt.Errorf("%w: the store has %d of %d bytes", ErrTruncated, oi.Size, up.size)
	}
	if oi.Size > up.size {
		return ObjectInfo{}, fmt.Errorf("%w: the store has %d bytes, %d were sent", ErrTrailing, oi.Size, up.size)
	}
	if up.size > 0 {
		if err := s.readBack(ctx, up, strings.Trim(oi.ETag, `"`) == up.etag()); err != nil {
			return ObjectInfo{}, err
		}
	}
	info := s.info(name, oi)
	info.LockedUntil, err = s.lockedUntil(ctx, up.key, oi.VersionID)
	return info, err
}

func (s *S3) readBack(ctx context.Context, up *upload, tailOnly bool) error {
	var o minio.GetObjectOptions
	want := up.sum
	size := up.size
	if tailOnly {
		sum := sha256.Sum256(up.tail)
		want, size = sum[:], int64(len(up.tail))
		if err := o.SetRange(up.size-size, up.size-1); err != nil {
			return err
		}
	}
	rc, _, _, err := s.core.GetObject(ctx, s.cfg.Bucket, up.key, o)
	if err != nil {
		return fmt.Errorf("read the stored object back: %w", err)
	}
	defer rc.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(rc, size+1))
	if err != nil {
		return fmt.Errorf("read the stored object back: %w", err)
	}
	if n < size {
		return fmt.Errorf("%w: the store gave back %d of %d bytes", ErrTruncated, n, size)
	}
	if n > size || !bytes.Equal(h.Sum(nil), want) {
		return fmt.Errorf("%w: the store gave back other bytes than were sent", ErrCorrupt)
	}
	return nil
}

// abort gives up a multipart upload; discard, an object that is not what was
// sent. Both work after a cancelled context, and what they cannot do Sweep and
// Prune do later.
func (s *S3) abort(ctx context.Context, key, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Stall)
	defer cancel()
	_ = s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, key, id)
}

func (s *S3) discard(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Stall)
	defer cancel()
	_ = s.Delete(ctx, name)
}

// Get implements Destination.
func (s *S3) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	rc, oi, _, err := s.core.GetObject(ctx, s.cfg.Bucket, s.prefix+name, minio.GetObjectOptions{})
	if version := s.hidden(ctx, s.prefix+name, err); version != "" {
		rc, oi, _, err = s.core.GetObject(ctx, s.cfg.Bucket, s.prefix+name, minio.GetObjectOptions{VersionID: version})
	}
	if err != nil {
		return nil, s.fail("get", name, err)
	}
	return &s3Reader{s: s, name: name, rc: rc, left: oi.Size}, nil
}

// s3Reader holds a download to the size that the store announced.
type s3Reader struct {
	s    *S3
	name string
	rc   io.ReadCloser
	left int64
}

func (r *s3Reader) Read(p []byte) (int, error) {
	n, err := r.rc.Read(p)
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left > 0, errors.Is(err, io.ErrUnexpectedEOF):
		return n, r.s.fail("get", r.name, fmt.Errorf("%w: the connection ended %d bytes early", ErrTruncated, r.left))
	case err != nil && err != io.EOF:
		return n, r.s.fail("get", r.name, err)
	}
	return n, err
}

func (r *s3Reader) Close() error { return r.rc.Close() }

// Stat implements Destination.
func (s *S3) Stat(ctx context.Context, name string) (ObjectInfo, error) {
	if err := checkName(name); err != nil {
		return ObjectInfo{}, err
	}
	oi, err := s.core.StatObject(ctx, s.cfg.Bucket, s.prefix+name, minio.StatObjectOptions{})
	version := s.hidden(ctx, s.prefix+name, err)
	if version != "" {
		oi, err = s.core.StatObject(ctx, s.cfg.Bucket, s.prefix+name, minio.StatObjectOptions{VersionID: version})
	}
	if err != nil {
		return ObjectInfo{}, s.fail("stat", name, s.explain(ctx, err))
	}
	info := s.info(name, oi)
	info.Hidden = version != ""
	if info.LockedUntil, err = s.lockedUntil(ctx, s.prefix+name, oi.VersionID); err != nil {
		return ObjectInfo{}, s.fail("stat", name, err)
	}
	return info, nil
}

// explain gives the cause of a HEAD that failed: its answer has no body that could tell. A
// question with one is asked the same way.
func (s *S3) explain(ctx context.Context, err error) error {
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		return err
	}
	switch r.StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusMovedPermanently, http.StatusTemporaryRedirect:
	default:
		return err
	}
	for oi := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.prefix, MaxKeys: 1, Recursive: true}) {
		if oi.Err != nil && minio.ToErrorResponse(oi.Err).Code != "" {
			return oi.Err
		}
		break
	}
	return err
}

func (s *S3) info(name string, oi minio.ObjectInfo) ObjectInfo {
	return ObjectInfo{Name: name, Size: oi.Size, ModTime: oi.LastModified}
}

// List implements Destination.
func (s *S3) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	if versioned, err := s.hasVersions(ctx); err == nil && versioned {
		// Who may not list versions sees what is there, as ever.
		if out, err := s.listVersions(ctx, prefix); err == nil || !errors.Is(err, ErrDenied) && !errors.Is(err, ErrUnsupported) {
			return out, err
		}
	}
	var out []ObjectInfo
	opts := minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true}
	for oi := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, opts) {
		if oi.Err != nil {
			return nil, s.fail("list", prefix, oi.Err)
		}
		name, ok := strings.CutPrefix(oi.Key, s.prefix)
		if !ok || checkName(name) != nil {
			continue // a folder marker, or somebody else's
		}
		out = append(out, s.info(name, oi))
	}
	if err := ctx.Err(); err != nil {
		return nil, s.fail("list", prefix, err)
	}
	sortObjects(out)
	return out, nil
}

// Sweep implements Sweeper: it ends multipart uploads that a killed run left.
func (s *S3) Sweep(ctx context.Context, before time.Time) (int, error) {
	n := 0
	for u := range s.core.ListIncompleteUploads(ctx, s.cfg.Bucket, s.prefix, true) {
		if u.Err != nil {
			return n, s.fail("sweep", s.prefix, u.Err)
		}
		if _, _, ours := splitObject(strings.TrimPrefix(u.Key, s.prefix)); !ours || !u.Initiated.Before(before) {
			continue
		}
		if err := s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, u.Key, u.UploadID); err != nil {
			return n, s.fail("sweep", u.Key, err)
		}
		n++
	}
	return n, nil
}
