package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// connection is a connection of the client. It reads and writes bytes, because an http.Client would add its
// goroutines to the measured time.
type connection struct {
	target string
	conn   net.Conn // nil: not open
	reader *bufio.Reader
}

// answer is an answer, with the time from the request to its first byte.
type answer struct {
	took   time.Duration
	status int
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// open connects, before the clock starts.
func (c *connection) open() (err error) {
	if c.conn != nil {
		return nil
	}
	if c.conn, err = net.Dial("tcp", c.target); err != nil {
		return err
	}
	c.reader = bufio.NewReader(c.conn)
	return nil
}

func (c *connection) close() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is lost
		c.conn = nil
	}
}

// ask sends one request and reads its answer.
func (c *connection) ask(email string) (answer, error) {
	if err := c.open(); err != nil {
		return answer{}, err
	}
	body := `{"email":"` + email + `"}`
	request := fmt.Appendf(nil, "POST /api/auth/send-password-reset HTTP/1.1\r\nHost: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", c.target, len(body), body)
	if err := c.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return answer{}, err
	}
	began := time.Now()
	if _, err := c.conn.Write(request); err != nil {
		return answer{}, err
	}
	if _, err := c.reader.Peek(1); err != nil {
		return answer{}, err
	}
	took := time.Since(began)
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	if response.Close {
		c.close()
	}
	return answer{took, response.StatusCode, strings.TrimSpace(string(text))}, nil
}
