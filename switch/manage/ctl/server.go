package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"
)

// Limits on what clients may cost. A request is small and a switch answers
// within milliseconds, so whoever needs longer is broken or means harm.
const (
	headerTimeout  = 5 * time.Second  // from connecting to the end of the headers
	requestTimeout = 10 * time.Second // to the end of the body
	answerTimeout  = 60 * time.Second // to the end of the answer; a guest may take long to let go of a device
	idleTimeout    = 30 * time.Second // between two requests
	refusalTimeout = time.Second      // of a client that is turned away, from connecting to its end
	maxHeader      = 16 << 10         // bytes
	maxConns       = 64
	maxEventConns  = 16 // of them; so that watchers can't lock others out
)

// Daemon is what surrounds a switch and can do what the switch can't: open
// ports, and read and write configurations. Its methods may be called from any
// goroutine.
type Daemon interface {
	// Kinds are the kinds of ports that AddPort can open.
	Kinds() config.Kinds
	// AddPort opens and attaches a port.
	AddPort(config.Port) error
	// AddGuestPort makes a port of a guest's tap, and a new one of what an
	// earlier guest left.
	AddGuestPort(config.Spec) error
	// DelGuestPort detaches a port that was made for a guest; any other stays.
	DelGuestPort(name string) error
	// Config is the running state as a file.
	Config() ([]byte, error)
	// Reload reads the file anew and applies the difference, all of it or
	// nothing; it returns what changed, a line each.
	Reload() ([]string, error)
}

// Guests plugs network cards into running virtual machines; qemu.Guests does.
type Guests interface {
	Attach(context.Context, qemu.AttachOptions) (*qemu.NIC, error)
	Detach(ctx context.Context, qmp, id string) error
	List() []qemu.GuestNIC
}

// Server answers requests to one switch.
type Server struct {
	sw       *vswitch.Switch
	daemon   Daemon
	guests   Guests
	http     http.Server
	watchers chan struct{} // a token for each stream of events
	tables   chan struct{} // one for each table that is read
	making   chan struct{} // one for each answer in the making
	held     atomic.Int64  // bytes of answers on their way
	change   sync.Mutex    // held from reading a configuration, of a port or the tree, to replacing it
}

// NewServer makes a server for sw. logger may be nil.
func NewServer(sw *vswitch.Switch, d Daemon, g Guests, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.Default()
	}
	s := &Server{sw: sw, daemon: d, guests: g, watchers: make(chan struct{}, maxEventConns),
		tables: make(chan struct{}, maxTableReads), making: make(chan struct{}, maxMaking)}
	s.http = http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout + answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers on l until Close; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(Limit(l, maxConns, "application/json", `{"error":"too many connections to the control socket: try again"}`))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends every connection and stops listening.
func (s *Server) Close() error { return s.http.Close() }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(*http.Request) (any, error){
		"GET /v1/switch":                    s.getSwitch,
		"PATCH /v1/switch":                  s.setSwitch,
		"GET /v1/ports":                     s.getPorts,
		"POST /v1/ports":                    s.addPort,
		"GET /v1/ports/{name}":              s.getPort,
		"PATCH /v1/ports/{name}":            s.setPort,
		"DELETE /v1/ports/{name}":           s.delPort,
		"POST /v1/fdb":                      s.addFDB,
		"DELETE /v1/fdb":                    s.flushFDB,
		"DELETE /v1/fdb/{mac}":              s.delFDB,
		"GET /v1/vlans":                     s.getVLANs,
		"POST /v1/vlans":                    s.addVLANs,
		"DELETE /v1/vlans":                  s.delVLANs,
		"GET /v1/stp":                       s.getSTP,
		"PATCH /v1/stp":                     s.setSTP,
		"POST /v1/stp/ports/{name}/recover": s.recoverPort,
		"POST /v1/stp/ports/{name}/mcheck":  s.mcheck,
		"GET /v1/stats":                     s.getStats,
		"GET /v1/vms":                       s.getVMs,
		"POST /v1/vms":                      s.attachVM,
		"DELETE /v1/vms":                    s.detachVM,
		"POST /v1/reload":                   s.reload,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, h) })
	}
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /v1/config", s.getConfig)
	mux.HandleFunc("GET /v1/fdb", s.getFDB)
	return &jsonErrors{mux}
}

// answer runs one call and writes its result. The request is there to its end
// before anything is done.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, call func(*http.Request) (any, error)) {
	whole, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		err = badRequest("read body: %w", err)
		fail(w, status(err), err)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(whole))
	// From here on it is our time, not the client's: the limit on reading would
	// cancel the request's context while we work.
	conn := http.NewResponseController(w)
	conn.SetReadDeadline(time.Time{})
	conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	var before map[string]bool
	if r.Method != http.MethodGet {
		before = s.warnings()
	}
	body, err := s.document(r, call)
	if err != nil {
		fail(w, status(err), err)
		return
	}
	if r.Method != http.MethodGet {
		warn(w.Header(), before, s.warnings())
	}
	s.deliver(w, "application/json", body)
}

// requestError is what is wrong with a request itself.
type requestError struct{ error }

func (e requestError) Unwrap() error { return e.error }

func badRequest(format string, args ...any) error { return requestError{fmt.Errorf(format, args...)} }

// status is the HTTP status of an error. What the switch refuses for what it
// says, not for how it is said, is 422.
func status(err error) int {
	var tooLarge *http.MaxBytesError
	var bad requestError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &bad):
		return http.StatusBadRequest
	case errors.Is(err, vswitch.ErrNoPort), errors.Is(err, qemu.ErrNotAttached):
		return http.StatusNotFound
	case errors.Is(err, vswitch.ErrPortExists), errors.Is(err, vswitch.ErrTooMany):
		return http.StatusConflict
	case errors.Is(err, vswitch.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, fs.ErrPermission):
		return http.StatusForbidden
	}
	return http.StatusUnprocessableEntity
}

func fail(w http.ResponseWriter, code int, err error) {
	body, _ := json.Marshal(failure{config.OneLine(err)})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(body, '\n'))
}

// read decodes a request's body, which must be one document of v's shape.
func read(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return badRequest("the body is missing")
		}
		return badRequest("read body: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("read body: something follows the document")
	}
	return nil
}

// jsonErrors gives the mux's own refusals (no such path, wrong method) the form
// of all errors.
type jsonErrors struct{ mux *http.ServeMux }

func (j *jsonErrors) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := j.mux.Handler(r); pattern != "" {
		j.mux.ServeHTTP(w, r)
		return
	}
	plain := &discard{header: w.Header(), code: http.StatusNotFound}
	j.mux.ServeHTTP(plain, r)
	err := fmt.Errorf("no such path %s", r.URL.Path)
	if plain.code == http.StatusMethodNotAllowed {
		err = fmt.Errorf("%s %s: want method %s", r.Method, r.URL.Path, w.Header().Get("Allow"))
	}
	w.Header().Del("X-Content-Type-Options")
	fail(w, plain.code, err)
}

// discard keeps a refusal's headers and status and drops its text.
type discard struct {
	header http.Header
	code   int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(code int)        { d.code = code }

// limited is a listener that turns away connections beyond its room, saying so.
type limited struct {
	net.Listener
	room     chan struct{}
	refusals chan struct{} // a token for each connection that is being turned away
	answer   string        // they get
}

// Limit is l for an HTTP server that shall have n connections at most. Whoever is
// turned away gets text, of that content type.
func Limit(l net.Listener, n int, kind, text string) net.Listener {
	return &limited{l, make(chan struct{}, n), make(chan struct{}, n),
		"HTTP/1.1 503 Service Unavailable\r\nContent-Type: " + kind + "\r\nConnection: close\r\n\r\n" + text + "\n"}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.room <- struct{}{}:
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { <-l.room })}, nil
		default:
		}
		select {
		case l.refusals <- struct{}{}:
			go func() {
				refuse(conn, l.answer)
				<-l.refusals
			}()
		default:
			conn.Close()
		}
	}
}

// refuse answers one request without looking at it. It hears it first: a client
// that is answered and cut off while it still asks takes that for a fault.
func refuse(conn net.Conn, answer string) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(refusalTimeout))
	if n, _ := conn.Read(make([]byte, maxHeader)); n > 0 {
		io.WriteString(conn, answer)
	}
}

// counted is a connection that takes up room until it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
