package bench

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"testing"
)

func TestManual(t *testing.T) {
	if os.Getenv("MANUAL") == "" {
		t.Skip()
	}
	o := Options{Quick: os.Getenv("FULL") == "", Out: os.Stdout, tolerant: os.Getenv("TOLERANT") != "", Tests: strings.Split(os.Getenv("MANUAL"), ","), ReportDir: "/tmp/kb/report"}
	if s := os.Getenv("SIZES"); s != "" {
		o.Sizes = strings.Split(s, ",")
	}
	if s := os.Getenv("RUNS"); s != "" {
		o.Runs, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("AGAINST"); s != "" {
		o.Against = strings.Split(s, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	_, err := Run(ctx, o)
	t.Log(err)
}
