package front

import (
	ring "container/list"
	"net"
	"sync"
)

// maxIdle is how many connections may be kept without a request under way. Each takes
// some 40 KB, most of it net/http's and crypto/tls's own buffers and stacks.
const maxIdle = 3000

// idlers are the connections without a request under way, in the order in which they
// have become so.
type idlers struct {
	most int

	mu    sync.Mutex
	order ring.List
	at    map[net.Conn]*ring.Element
}

func newIdlers(most int) *idlers { return &idlers{most: most, at: map[net.Conn]*ring.Element{}} }

// idle adds c, and gives the one that has to go for it, if any: that which nobody has
// used for longest.
func (i *idlers) idle(c net.Conn) (gone net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, there := i.at[c]; there {
		return nil
	}
	i.at[c] = i.order.PushBack(c)
	if i.order.Len() <= i.most {
		return nil
	}
	gone = i.order.Remove(i.order.Front()).(net.Conn)
	delete(i.at, gone)
	return gone
}

// busy takes c out, if it is there.
func (i *idlers) busy(c net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if e, there := i.at[c]; there {
		i.order.Remove(e)
		delete(i.at, c)
	}
}
