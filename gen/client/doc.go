// Package client is the Go client that go generate writes from openapi.yaml. It depends on
// nothing of the server, and nothing in it is written by hand but this comment.
package client
