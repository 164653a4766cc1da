package main

import (
	"encoding/base64"

	"github.com/resetd/resetd/test/resetdtest"
)

// The accounts and origins of these tests.
const (
	knownEmail = "known@example.com"
	otherKnown = "other.known@example.com"
	site       = resetdtest.Site
	preview    = resetdtest.Preview
	endpoint   = resetdtest.Endpoint
)

// jwt returns a key with these claims. These tests do not look at its signature.
func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("a signature of a real length 123"))
}
