package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
)

// keyFrom derives a key for one purpose from the Supabase key, which all instances share and nobody else has. Without
// a Supabase key it returns a random key, because there is nothing to share then.
func keyFrom(secret Secret, purpose string) []byte {
	key := secret.Reveal()
	if key == "" {
		key = rand.Text()
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte("resetd: " + purpose))
	return mac.Sum(nil)
}

// newFingerprint returns the function that makes keyed hashes for the log, in place of addresses. 64 bits tell a log's
// addresses apart. The function reuses its HMACs, because making one costs more than hashing.
func newFingerprint(key []byte) func(text string) string {
	hashes := sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}
	return func(text string) string {
		mac := hashes.Get().(hash.Hash)
		defer hashes.Put(mac)
		mac.Reset()
		mac.Write([]byte(text))
		return hex.EncodeToString(mac.Sum(nil)[:8])
	}
}

// hashOf returns the name of a Supabase project in Redis.
func hashOf(url string) string {
	sum := sha256.Sum256([]byte(url))
	return hex.EncodeToString(sum[:8])
}
