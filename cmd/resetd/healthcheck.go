package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/resetd/resetd/impl/upstream"
)

// healthcheckTimeout is shorter than the default of container runtimes (30 s), and longer than a loaded server takes.
const healthcheckTimeout = 3 * time.Second

// healthcheck sends a request to the instance with the same settings in the same container. The image has no shell
// and no other client.
func healthcheck(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	ready := false
	settings, err := readSettings("healthcheck", args, environ, stderr, func(flags *flag.FlagSet) {
		flags.BoolVar(&ready, "ready", false, "ask /readyz: whether it should be sent requests, and not only whether it answers")
	})
	if err != nil {
		return err
	}
	address, path := settings.ListenAddr, "/healthz"
	if ready {
		path = "/readyz"
		if settings.AdminAddr != "" { // this listener says why it is not ready
			address = settings.AdminAddr
		}
	}
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+reachable(address)+path, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	// A proxy in the environment is for upstreams.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", path, upstream.Cause(err))
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4096)) // a part of it helps too
	fmt.Fprintf(stdout, "%s", body)
	if response.StatusCode != http.StatusOK {
		return errors.New(path + ": " + response.Status)
	}
	return nil
}

// reachable returns the address at which a listener of this machine can be reached: the loopback for a listener on
// all addresses.
func reachable(address string) string {
	host, port, _ := net.SplitHostPort(address) // the settings have been checked
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() && !ip.Is4In6() {
			host = "::1" // with IPV6_V6ONLY nothing listens on 127.0.0.1
		}
	}
	return net.JoinHostPort(host, port)
}
