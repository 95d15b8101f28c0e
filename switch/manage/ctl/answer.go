package ctl

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
)

// What answers may cost. A client that reads slowly, or asks again and again and
// does not read, has its answers in our memory; so there is a limit on what lies
// there, on how many are made at once, and on how long nothing is read.
const (
	stallTimeout  = 5 * time.Second  // in which a client reads a piece, or is taken for dead
	roomTimeout   = 10 * time.Second // to wait for others that get large answers
	pieceSize     = 32 << 10         // bytes
	maxHeld       = 64 << 20         // bytes of answers that are not read yet
	maxMaking     = 16               // answers that are made at once
	maxTableReads = 4                // clients that get the table at once; each has up to 3 MB of it
)

var errManyReaders = errors.New("too many clients read large answers: try again")

// document runs one call and makes its result a document, {} if it has none. No
// client can keep it from being done, so others just wait for it.
func (s *Server) document(r *http.Request, call func(*http.Request) (any, error)) ([]byte, error) {
	if r.Method == http.MethodGet {
		s.making <- struct{}{}
		defer func() { <-s.making }()
	}
	result, err := call(r)
	if err != nil {
		return nil, err
	}
	if result == nil {
		result = struct{}{}
	}
	body, err := json.Marshal(result)
	if err != nil {
		return nil, fmt.Errorf("write answer: %w", err)
	}
	return append(body, '\n'), nil
}

// deliver writes a whole answer of that type.
func (s *Server) deliver(w http.ResponseWriter, kind string, body []byte) {
	n := int64(len(body))
	defer s.held.Add(-n)
	if s.held.Add(n) > maxHeld && n < maxHeld { // a larger one is the only one, if any
		fail(w, http.StatusServiceUnavailable, errManyReaders)
		return
	}
	w.Header().Set("Content-Type", kind)
	out := newPieces(w)
	for len(body) > 0 {
		piece := body[:min(len(body), pieceSize)]
		if _, err := out.Write(piece); err != nil {
			return // whoever asked has gone, or reads no more
		}
		body = body[len(piece):]
	}
}

// pieces writes an answer piece by piece, each in its time and all of them in
// answerTimeout.
type pieces struct {
	to      http.ResponseWriter
	conn    *http.ResponseController
	end     time.Time
	started bool
}

func newPieces(w http.ResponseWriter) *pieces {
	return &pieces{to: w, conn: http.NewResponseController(w), end: time.Now().Add(answerTimeout)}
}

func (p *pieces) Write(b []byte) (int, error) {
	p.started = true
	limit := time.Now().Add(stallTimeout)
	if p.end.Before(limit) {
		limit = p.end
	}
	p.conn.SetWriteDeadline(limit)
	return p.to.Write(b)
}

// getFDB answers with the table, which is made while it is sent: a table may be
// larger than all else that the switch holds.
func (s *Server) getFDB(w http.ResponseWriter, r *http.Request) {
	vlan, err := vlanOf(r)
	if err != nil {
		fail(w, status(err), err)
		return
	}
	wait := time.NewTimer(roomTimeout)
	defer wait.Stop()
	select {
	case s.tables <- struct{}{}:
		defer func() { <-s.tables }()
	case <-wait.C:
		fail(w, http.StatusServiceUnavailable, errManyReaders)
		return
	}
	to := newPieces(w)
	to.conn.SetReadDeadline(time.Time{}) // from here on it is our time
	out := bufio.NewWriterSize(to, pieceSize)
	w.Header().Set("Content-Type", "application/json")
	next := byte('[')
	err = s.sw.EachFDB(r.URL.Query().Get("port"), vlan, func(e vswitch.FDBEntry) error {
		row, err := json.Marshal(e)
		if err != nil {
			return err
		}
		out.WriteByte(next)
		next = ','
		_, err = out.Write(row)
		return err
	})
	switch {
	case err == nil && next == '[':
		_, err = out.WriteString("[]\n")
	case err == nil:
		_, err = out.WriteString("]\n")
	case !to.started:
		fail(w, status(err), err)
		return
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // half a table must not look like a whole one
	}
}
