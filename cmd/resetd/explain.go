package main

import (
	"flag"
	"fmt"
	"io"
	"net/netip"
	"net/textproto"
	"strings"

	"github.com/resetd/resetd/impl/setting"
)

// explainClient is the flag --explain-client: a peer, and the headers that it sends.
type explainClient struct {
	asked   bool
	peer    string
	headers []string
}

const explainFlag = "explain-client"

func (e *explainClient) addFlag(flags *flag.FlagSet) {
	flags.Func(explainFlag, "say who the client of a request would be that comes from `PEER`, an address, with the headers that follow: \"Name: value\" …; needs no other settings than those about proxies, and asks nobody", func(value string) error {
		e.asked, e.peer = true, value
		return nil
	})
}

// takeHeaders removes the headers after the flag and its value from the arguments, and returns the others.
func (e *explainClient) takeHeaders(args []string) (others []string) {
	for i := 0; i < len(args); i++ {
		others = append(others, args[i])
		name, _, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if name != explainFlag || !strings.HasPrefix(args[i], "-") {
			continue
		}
		if !hasValue && i+1 < len(args) {
			i++
			others = append(others, args[i])
		}
		for ; i+1 < len(args) && !strings.HasPrefix(args[i+1], "-"); i++ {
			e.headers = append(e.headers, args[i+1])
		}
	}
	return others
}

// print prints who the client is, and why.
func (e *explainClient) print(s *settings, out io.Writer) error {
	_, err := netip.ParseAddrPort(e.peer)
	if _, alone := netip.ParseAddr(e.peer); err != nil && alone != nil {
		return setting.Mistakes{{Setting: "--explain-client", Text: "must be the address that the connection comes from, like 10.0.0.1 or [2001:db8::1]:443"}}
	}
	header := map[string][]string{}
	for _, argument := range e.headers {
		for line := range strings.Lines(argument) {
			name, value, found := strings.Cut(line, ":")
			if name = strings.TrimSpace(name); !found || name == "" || strings.ContainsAny(name, " \t") {
				return setting.Mistakes{{Setting: "--explain-client", Text: `its headers must be like "X-Forwarded-For: 192.0.2.1", each in quotes`}}
			}
			name = textproto.CanonicalMIMEHeaderKey(name)
			header[name] = append(header[name], strings.TrimSpace(value))
		}
	}
	explanation := s.clientIP.Explain(e.peer, header)
	fmt.Fprintf(out, "client   %s\nbecause  it is %s\n", explanation.Client, explanation.Why)
	if explanation.Fix != "" {
		fmt.Fprintf(out, "to do    %s\n", explanation.Fix)
	}
	return nil
}
