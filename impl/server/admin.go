package server

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
)

// Readiness says whether a load balancer should send requests here, and if not, why. It is about this instance
// alone: if it followed the upstreams, their outage would take away all instances at once, and with them the
// answers that explain it.
type Readiness struct {
	missing  []string
	stopping atomic.Bool
}

// NewReadiness returns the readiness of an instance, which is not ready if settings are missing.
func NewReadiness(missing []string) *Readiness { return &Readiness{missing: missing} }

// Stop ends the readiness, on SIGTERM. Requests are still answered.
func (r *Readiness) Stop() { r.stopping.Store(true) }

// why returns the reason not to be ready; empty if ready.
func (r *Readiness) why() string {
	switch {
	case r.stopping.Load():
		return "stopping"
	case len(r.missing) > 0:
		return "not configured"
	}
	return ""
}

// Ready reports whether requests should be sent here.
func (r *Readiness) Ready() bool { return r.why() == "" }

// Admin returns the handler of the operator's listener: /livez, /readyz and /metrics.
func Admin(metrics http.Handler, readiness *Readiness) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]any{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := readiness.why(); why != "" {
			body := map[string]any{"status": "not ready", "reason": why}
			if len(readiness.missing) > 0 {
				body["missing"] = readiness.missing
			}
			respond(w, http.StatusServiceUnavailable, body)
			return
		}
		respond(w, http.StatusOK, map[string]any{"status": "ok"})
	})
	return mux
}

func respond(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails only when the client has gone
}
