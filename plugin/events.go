package apikeys

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
)

// eventPrefix begins the type of every event, as in apikeys/rotate.
const eventPrefix = "apikeys/"

// eventIDLength is in hexadecimal digits.
const eventIDLength = 32

// emit tells the world of a change. It never fails the change itself, and it
// carries no secret.
func (b *backend) emit(ctx context.Context, kind, key string, pairs ...string) {
	id, err := b.randomID(eventIDLength)
	if err != nil {
		b.Logger().Warn("an event could not be sent", "type", kind, "error", err)
		return
	}
	b.emitAs(ctx, id, kind, key, pairs...)
}

// emitRotate tells of a version that became current. As recover may tell of it
// again after a crash, its id follows from the version's name.
func (b *backend) emitRotate(ctx context.Context, key string, v *lifecycle.Version) {
	sum := sha256.Sum256([]byte("rotate\x00" + b.fence.mount() + "\x00" + v.Name))
	b.emitAs(ctx, hex.EncodeToString(sum[:])[:eventIDLength], "rotate", key, "version", strconv.Itoa(v.Number))
}

// emitChange tells of a change of the mount itself: a path below it, such as
// providers/NAME.
func (b *backend) emitChange(ctx context.Context, kind, path string) {
	b.emit(ctx, kind, "", "path", path)
}

// emitAs goes on although the request that caused the change has ended.
func (b *backend) emitAs(ctx context.Context, id, kind, key string, pairs ...string) {
	ctx = context.WithoutCancel(ctx)
	e := hookEvent{ID: id, Type: kind, Time: b.clock.now(), Mount: b.fence.mount(), Key: key, Data: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		e.Data[pairs[i]] = pairs[i+1]
	}
	b.hooks.send(ctx, e)
	meta := []string{logical.EventMetadataOperation, kind, logical.EventMetadataModified, "true"}
	if key != "" {
		meta = append(meta, logical.EventMetadataPath, "keys/"+key, logical.EventMetadataDataPath, "creds/"+key)
	}
	meta = append(meta, pairs...)
	err := logical.SendEvent(ctx, b, eventPrefix+kind, meta...)
	if err != nil && !errors.Is(err, framework.ErrNoEvents) {
		b.Logger().Debug("an event could not be sent", "type", kind, "key", key, "error", err)
	}
}

// reportClock logs and tells once that the clock is not believed.
func (b *backend) reportClock(ctx context.Context) {
	state, skew := b.clock.state()
	if last, _ := b.clockReported.Swap(state).(lifecycle.ClockState); last == state || (last == "" && state == lifecycle.ClockOK) {
		return
	}
	if state == lifecycle.ClockOK {
		b.Logger().Info("the clock is believed again")
		return
	}
	b.Logger().Warn("the clock has jumped: the engine keeps its own time until the clock is back or config accept_clock=true says that it is right",
		"state", state, "skew", skew)
	b.emit(ctx, "clock", "", "state", string(state))
}
