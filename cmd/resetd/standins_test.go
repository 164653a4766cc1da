package main

import (
	"encoding/base64"

	"github.com/resetd/resetd/test/resetdtest"
)

// These are the accounts and origins of the tests.
const (
	knownEmail = "known@example.com"
	otherKnown = "other.known@example.com"
	site       = resetdtest.Site
	preview    = resetdtest.Preview
	endpoint   = resetdtest.Endpoint
)

// jwt returns a key with these claims. No test checks its signature.
func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("a signature of a real length 123"))
}
