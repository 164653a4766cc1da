package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestSecret: nothing that prints values prints a secret.
func TestSecret(t *testing.T) {
	const value = "hunter2"
	holder := struct{ Key Secret }{value}
	var out bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, format+"\n", holder)
		fmt.Fprintf(&out, format+"\n", holder.Key)
	}
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", holder.Key, "holder", holder)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", holder.Key, "holder", holder)
	fmt.Fprintln(&out, settings{SupabaseKey: value, RedisURL: value})
	if text := out.String(); strings.Contains(text, value) || strings.Contains(text, fmt.Sprintf("%x", value)) || !strings.Contains(text, "[redacted]") {
		t.Error(text)
	}
	if Secret(value).Reveal() != value {
		t.Error("Reveal does not")
	}
}
