/*
Container stands in, inside a network of its own, for what resetd talks to and for who talks to
resetd. The image under test has no shell and no client of its own to do it with. The packages are
tested with it too.

	container serve DIR                 Supabase Auth on 127.0.0.1:7001 and Mailgun on :7002, both by TLS;
	                                    their authority's certificate is written to DIR/ca.pem
	container ask METHOD URL [BODY]     print the status and the body of one answer
	container until STATUS URL          ask until the status is that one, for a minute
	container names                     answer on port 53 that every name is 127.0.0.1

GET /mails of http://127.0.0.1:7000 says how many messages have been delivered, and how many were test
messages; GET /mails/N waits until N have been delivered.
*/
package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/resetd/resetd/impl/devstack"
)

// Both sides get these settings. The keys open nothing else.
const (
	supabaseKey   = "container-service-role-key"
	mailgunKey    = "container-mailgun-key"
	mailgunDomain = "mg.example.com"
	site          = "https://app.example.com"
	known         = "known@example.com"
)

// patience is longer than anything here takes, and shorter than people wait for a test.
const patience = time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "container:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case (len(args) == 3 || len(args) == 4) && args[0] == "ask":
		status, body, err := ask(args[1], args[2], strings.Join(args[3:], ""))
		if err != nil {
			return err
		}
		fmt.Printf("%d\n%s\n", status, body)
		return nil
	case len(args) == 3 && args[0] == "until":
		return until(args[1], args[2])
	case len(args) == 1 && args[0] == "names":
		return names()
	default:
		return errors.New("usage: container serve DIR | ask METHOD URL [BODY] | until STATUS URL | names")
	}
}

func ask(method, url, body string) (status int, answer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

func until(status, url string) error {
	var last string
	for began := time.Now(); time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		got, body, err := ask(http.MethodGet, url, "")
		if strconv.Itoa(got) == status {
			return nil
		}
		last = fmt.Sprint(got, " ", body, err)
	}
	return fmt.Errorf("%s does not answer %s within %v: %s", url, status, patience, last)
}

func serve(dir string) error {
	stack := devstack.New(devstack.Config{
		Accounts: []string{known}, SiteURL: site,
		ServiceRoleKey: supabaseKey, MailgunKey: mailgunKey, MailgunDomain: mailgunDomain,
	})
	defer stack.Close()
	mails := func() string {
		return fmt.Sprintf("%d delivered, %d test messages", len(stack.Mails()), len(stack.TestMessages()))
	}
	control := http.NewServeMux()
	control.HandleFunc("GET /mails", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, mails()) })
	control.HandleFunc("GET /mails/{number}", func(w http.ResponseWriter, r *http.Request) {
		number, _ := strconv.Atoi(r.PathValue("number"))
		for len(stack.Mails()) < number && r.Context().Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
		fmt.Fprint(w, mails())
	})

	for address, handler := range map[string]http.Handler{"127.0.0.1:7000": control, "127.0.0.1:7001": stack.Supabase(), "127.0.0.1:7002": stack.Mailgun()} {
		server := httptest.NewUnstartedServer(handler)
		defer server.Close()
		var err error
		if server.Listener, err = net.Listen("tcp", address); err != nil {
			return err
		}
		if handler == control {
			server.Start()
			continue
		}
		// The certificate is for 127.0.0.1 and names under example.com, from its own authority.
		server.StartTLS()
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o644); err != nil {
			return err
		}
	}
	select {} // until it is killed
}

// names is a DNS server that knows one address.
func names() error {
	connection, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	for packet := make([]byte, 1500); ; {
		size, client, err := connection.ReadFrom(packet)
		if err != nil {
			return err
		}
		var message dnsmessage.Message
		if err := message.Unpack(packet[:size]); err != nil || len(message.Questions) != 1 {
			continue
		}
		message.Response, message.Additionals = true, nil
		if question := message.Questions[0]; question.Type == dnsmessage.TypeA {
			message.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			}}
		}
		answer, err := message.Pack()
		if err != nil {
			return err
		}
		if _, err := connection.WriteTo(answer, client); err != nil {
			return err
		}
	}
}
