package loglimit

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stopped is a log that nobody reads until it is let go on.
type stopped struct {
	book
	read chan struct{}
}

func (s *stopped) Write(p []byte) (int, error) {
	<-s.read
	return s.book.Write(p)
}

func TestNobodyWaitsForALogThatIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &stopped{read: make(chan struct{})}
		q := NewQueue(slog.NewTextHandler(k, nil))
		log := slog.New(q).With("switch", "kvs0")
		const lines = queueRoom + 1000
		for i := range lines {
			log.Info(fmt.Sprint("line ", i))
			if i == 0 {
				synctest.Wait() // it is being written
			}
		}
		began := time.Now()
		q.Close(time.Second)
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("the end of a program whose log is not read took %v, want its patience", waited)
		}
		close(k.read) // somebody reads again
		synctest.Wait()
		q.Close(time.Hour)
		got := k.take()
		in, missing := 0, ""
		for _, l := range got {
			switch {
			case strings.Contains(l, LeftOut):
				missing = l
			case strings.Contains(l, fmt.Sprintf("msg=\"line %d\" switch=kvs0", in)):
				in++
			}
		}
		if in != queueRoom+1 || missing != got[len(got)-1] || !strings.Contains(missing, "left_out=999") {
			t.Errorf("%d lines in order, want %d, and then one for the 999 others; %q", in, queueRoom+1, missing)
		}
	})
}
