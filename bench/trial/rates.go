package trial

// Rate is what a contender was offered and passed on at full load, frames/s.
type Rate struct{ Offered, Received float64 }

// Rates remember what contenders can take, for tests that load each to a part of
// that.
type Rates struct {
	full map[contenderAndSize]Rate
	pdr  map[string]float64
}

type contenderAndSize struct{ contender, size string }

// Saw remembers the highest rates of a contender at full load.
func (r *Rates) Saw(contender, size string, offered, received float64) {
	k := contenderAndSize{contender, size}
	best := r.full[k]
	r.full[k] = Rate{max(best.Offered, offered), max(best.Received, received)}
}

// Full is the highest that was seen, and whether anything was.
func (r *Rates) Full(contender, size string) (Rate, bool) {
	rate, ok := r.full[contenderAndSize{contender, size}]
	return rate, ok
}

// SawPDR remembers the load, in frames/s, at which a contender loses 0.5 % of the
// smallest frames.
func (r *Rates) SawPDR(contender string, load float64) { r.pdr[contender] = load }

// PDR is that load, and whether it was looked for. 0: every load loses more.
func (r *Rates) PDR(contender string) (float64, bool) {
	load, ok := r.pdr[contender]
	return load, ok
}
