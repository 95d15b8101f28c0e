package ctl

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// eventBuffer is how many events may wait for a reader: a second's worth of a
// busy table. What comes beyond is lost and counted for the reader.
const eventBuffer = 4096

// events streams what happens until the client goes. The switch never waits for
// it: events go into a bounded queue, and a write that does not get done ends
// the stream.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.watchers <- struct{}{}:
		defer func() { <-s.watchers }()
	default:
		fail(w, http.StatusServiceUnavailable, errors.New("too many readers of events: close one"))
		return
	}
	events, cancel := s.sw.Subscribe(eventBuffer)
	defer cancel()
	conn := http.NewResponseController(w)
	conn.SetReadDeadline(time.Time{}) // the request's limit is not the stream's
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	out := json.NewEncoder(w)
	for {
		conn.SetWriteDeadline(time.Now().Add(stallTimeout))
		if conn.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			if out.Encode(e) != nil {
				return
			}
			for n := len(events); n > 0; n-- {
				if out.Encode(<-events) != nil {
					return
				}
			}
		}
	}
}
