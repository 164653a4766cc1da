package impl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/resetd/resetd/gen"
)

// world has all that the operation calls. It notes the calls in order.
type world struct {
	calls    []string
	events   []Event
	put      []Request
	health   error
	refused  bool  // the limit refuses
	full     error // the error of Admit
	broken   error // the error of Put, after Admit
	replaced bool  // callback origins are replaced
}

func (w *world) did(format string, args ...any) {
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
}

func (w *world) Check() error {
	w.did("health")
	return w.health
}

func (w *world) Take(_ context.Context, key string) bool {
	w.did("take %s", key)
	return !w.refused
}

func (w *world) Admit() error {
	w.did("admit")
	return w.full
}

func (w *world) Put(_ context.Context, request Request) error {
	w.did("put %s", request.Email)
	if w.broken == nil {
		w.put = append(w.put, request)
	}
	return w.broken
}

func (w *world) Resolve(callback string) (string, bool) {
	if callback == "" || w.replaced {
		return "https://site.example.com/reset", callback == ""
	}
	return "https://" + callback + ".example.com/reset", true
}

func (w *world) Saw(_ context.Context, event Event) { w.events = append(w.events, event) }

func (w *world) service() *Service {
	return &Service{
		Health: w, Recipients: w, Outbox: w, Pages: w, Watcher: w,
		Fingerprint: func(account string) string { return "hash of " + account },
	}
}

type caller struct{ id, traceparent string }

func (c caller) RequestID() string   { return c.id }
func (c caller) Traceparent() string { return c.traceparent }

func pointer[T any](value T) *T { return &value }

// TestOrder: for each request, what is called and put, in which order, and what the caller and the operator
// learn.
func TestOrder(t *testing.T) {
	replaced := Event{Kind: CallbackReplaced, RequestID: "id", Account: "hash of known@example.com"}
	accepted := Event{Kind: Accepted, RequestID: "id", Account: "hash of known@example.com"}
	suppressed := Event{Kind: Suppressed, RequestID: "id", Account: "hash of known@example.com"}
	own := errors.New("of the outbox")
	for _, c := range []struct {
		name       string
		world      world
		email      string // known@example.com where it is empty
		callback   *string
		err        error
		calls      []string
		events     []Event
		redirectTo string
	}{
		{name: "accepted", calls: []string{"health", "admit", "take known@example.com", "put known@example.com"}, events: []Event{accepted}, redirectTo: "https://site.example.com/reset"},
		{
			name: "capitals are one account, and kept as they were typed", email: "Known@Example.COM",
			calls: []string{"health", "admit", "take known@example.com", "put Known@Example.COM"}, events: []Event{accepted}, redirectTo: "https://site.example.com/reset",
		},
		{name: "Supabase refuses the key", world: world{health: ErrAuthNotConfigured}, err: ErrAuthNotConfigured, calls: []string{"health"}},
		{name: "Supabase is down", world: world{health: ErrAuthUnavailable, refused: true}, err: ErrAuthUnavailable, calls: []string{"health"}},
		{name: "Mailgun is down", world: world{health: ErrEmailDelivery, replaced: true}, callback: pointer("evil"), err: ErrEmailDelivery, calls: []string{"health"}},
		{name: "too many for this account", world: world{refused: true}, calls: []string{"health", "admit", "take known@example.com"}, events: []Event{suppressed}},
		// An overloaded server counts nothing for the address, so that it does not suppress a retry.
		{name: "overloaded", world: world{full: ErrOverloaded, refused: true}, err: ErrOverloaded, calls: []string{"health", "admit"}},
		{
			name: "the outbox refuses the request", world: world{broken: own}, err: own,
			calls: []string{"health", "admit", "take known@example.com", "put known@example.com"},
		},
		{
			name: "a callback that is allowed", callback: pointer("app"),
			calls: []string{"health", "admit", "take known@example.com", "put known@example.com"}, events: []Event{accepted}, redirectTo: "https://app.example.com/reset",
		},
		{
			name: "a callback that is not", world: world{replaced: true}, callback: pointer("evil"),
			calls: []string{"health", "admit", "take known@example.com", "put known@example.com"}, events: []Event{replaced, accepted}, redirectTo: "https://site.example.com/reset",
		},
		{
			name: "a callback that is not, and too many", world: world{replaced: true, refused: true}, callback: pointer("evil"),
			calls: []string{"health", "admit", "take known@example.com"}, events: []Event{replaced, suppressed},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.email == "" {
				c.email = "known@example.com"
			}
			body := &gen.SendPasswordResetRequest{Email: c.email, CallbackOrigin: c.callback}
			ctx := WithCaller(t.Context(), caller{id: "id"})
			response, err := c.world.service().SendPasswordReset(ctx, gen.SendPasswordResetRequestObject{Body: body})
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("%v, want %v", err, c.err)
			}
			if err == nil && response != gen.SendPasswordResetResponseObject(acknowledged) || err != nil && response != nil {
				t.Errorf("the answer is %v", response)
			}
			if !slices.Equal(c.world.calls, c.calls) {
				t.Errorf("calls: %q\nwant:  %q", c.world.calls, c.calls)
			}
			if !slices.Equal(c.world.events, c.events) {
				t.Errorf("the operator saw %v\nwant:            %v", c.world.events, c.events)
			}
			switch put := c.world.put; {
			case len(put) != min(1, len(c.redirectTo)):
				t.Errorf("%d requests were put", len(put))
			case len(put) == 1 && (put[0].RedirectTo != c.redirectTo || put[0].Account() != "known@example.com"):
				t.Errorf("put was %+v", put[0])
			}
		})
	}
}

// TestAcknowledgment: a suppressed request gets the same answer as an accepted request.
func TestAcknowledgment(t *testing.T) {
	if !acknowledged.Body.Ok || acknowledged.Body.Message != Acknowledgment || !strings.HasPrefix(Acknowledgment, "If ") {
		t.Errorf("%+v", acknowledged)
	}
}

// TestKept: an accepted request keeps what its delivery needs, but not the memory of its HTTP request:
// many may wait for an upstream that is down.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// All strings share the memory of the request, as with net/http and a JSON decoder.
		came := strings.Clone(strings.Repeat("x", 8<<10) + "known@example.com" + "de-CH, de;q=0.9" + "app" + "the-request-id" + "00-trace-span-01")
		cut := func(piece string) string {
			from := strings.Index(came, piece)
			return came[from : from+len(piece)]
		}
		w := &world{}
		ctx := WithCaller(t.Context(), caller{cut("the-request-id"), "00-trace-span-01"})
		_, err := w.service().SendPasswordReset(ctx, gen.SendPasswordResetRequestObject{
			Body:   &gen.SendPasswordResetRequest{Email: cut("known@example.com"), CallbackOrigin: pointer(cut("app"))},
			Params: gen.SendPasswordResetParams{AcceptLanguage: pointer(cut("de-CH, de;q=0.9"))},
		})
		if err != nil || len(w.put) != 1 {
			t.Fatal(err, w.put)
		}
		kept := w.put[0]
		want := Request{
			ID: "the-request-id", Traceparent: "00-trace-span-01", Email: "known@example.com",
			RedirectTo: "https://app.example.com/reset", Language: "de-CH, de;q=0.9", Accepted: time.Now(),
		}
		if kept != want {
			t.Errorf("kept is %+v\nwant    %+v", kept, want)
		}
		first := uintptr(unsafe.Pointer(unsafe.StringData(came)))
		for name, text := range map[string]string{"id": kept.ID, "email": kept.Email, "language": kept.Language, "redirect": kept.RedirectTo} {
			if at := uintptr(unsafe.Pointer(unsafe.StringData(text))); at >= first && at < first+uintptr(len(came)) {
				t.Errorf("the %s shares memory with the request", name)
			}
		}
	})
}

// TestWithoutCaller: a request without a caller and a language is accepted too.
func TestWithoutCaller(t *testing.T) {
	w := &world{}
	_, err := w.service().SendPasswordReset(t.Context(), gen.SendPasswordResetRequestObject{Body: &gen.SendPasswordResetRequest{Email: "known@example.com"}})
	if err != nil || len(w.put) != 1 || w.put[0].ID != "" || w.put[0].Traceparent != "" || w.put[0].Language != "" || w.put[0].Accepted.IsZero() {
		t.Errorf("%v, %+v", err, w.put)
	}
	if c := CallerOf(t.Context()); c != nil {
		t.Errorf("a caller: %v", c)
	}
}
