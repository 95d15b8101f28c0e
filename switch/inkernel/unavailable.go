package inkernel

import (
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/switch/relay"
)

// Unavailable stands for a tier where none can be had: it carries nothing, and
// says why.
type Unavailable struct{ Err error }

var _ relay.Follower = Unavailable{}

// Follow implements relay.Follower.
func (Unavailable) Follow(*relay.View) {}

// Beat implements relay.Follower.
func (Unavailable) Beat(time.Duration) bool { return true }

// Carried implements relay.Follower.
func (u Unavailable) Carried(int) relay.Carried {
	why, _, _ := strings.Cut(u.Err.Error(), "\n")
	return relay.Carried{Why: why}
}
