package redisclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl/setting"
)

// Config has the settings REDIS_URL, REDIS_CA, REDIS_CLIENT_CERT and REDIS_CLIENT_KEY. All but the first are PEM.
type Config struct{ URL, CA, ClientCert, ClientKey string }

// Kind is a way in which Redis is deployed.
type Kind string

// The kinds, by the parameter of the URL that decides. Each is a form of go-redis (ParseURL, ParseFailoverURL,
// ParseClusterURL).
const (
	Single   Kind = "a single Redis"         // neither master_name nor addr
	Sentinel Kind = "Redis behind Sentinels" // master_name
	Cluster  Kind = "a Redis Cluster"        // addr without master_name
)

// Target says where Redis is and how to connect to it: a Config without mistakes.
type Target struct {
	Kind Kind
	// Unverified says that TLS is used and the server's certificate is not verified.
	Unverified bool
	// HasCA and HasClientCert say which certificates the operator has given.
	HasCA, HasClientCert bool
	// Dial, if set, connects in place of the network, so that tests need none.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	options redis.UniversalOptions
	tls     *tls.Config // nil without TLS
	host    string      // of the URL

	dialTimeout time.Duration // longer in tests alone
}

const (
	urlForms = "must be redis://[[user]:password@]host[:port][/database], rediss:// for TLS, or unix:///path/of/socket; " +
		"with ?master_name=NAME for Sentinels, with ?addr=HOST:PORT for a Cluster, and with special characters in a password written as %XX"
	oneSlashMore = "must have three slashes before the path of a socket: unix:///run/redis.sock, or unix://user:password@/run/redis.sock"
)

// parameters are the parameters of go-redis that each kind accepts. The others set timeouts, retries and pools, which
// this package decides, or read from replicas, which would let requests through.
var parameters = map[Kind][]string{
	Single:   {"client_name", "db", "protocol", "skip_verify"},
	Sentinel: {"addr", "client_name", "db", "master_name", "password", "protocol", "skip_verify", "username"},
	Cluster:  {"addr", "client_name", "protocol"},
}

// Parse returns the target of a Config, or all mistakes in it. It returns nil and no mistakes for an empty Config.
func Parse(c Config) (*Target, setting.Mistakes) {
	var wrong setting.Mistakes
	var t *Target
	if c.URL != "" {
		parsed, err := parseURL(c.URL)
		wrong.Judge("REDIS_URL", err)
		t = parsed
	}
	config, certificates := parseCertificates(c)
	wrong.Merge(certificates)
	given := c.CA != "" || c.ClientCert != "" || c.ClientKey != ""
	switch {
	case !given || t == nil && c.URL != "": // nothing more is known
	case t == nil || t.tls == nil:
		for _, tls := range []struct{ name, value string }{{"REDIS_CA", c.CA}, {"REDIS_CLIENT_CERT", c.ClientCert}, {"REDIS_CLIENT_KEY", c.ClientKey}} {
			if tls.value != "" {
				wrong.Add(tls.name, "is for TLS, and REDIS_URL does not begin with rediss://: write rediss:// there, or remove it")
			}
		}
	case c.CA != "" && t.Unverified:
		wrong.Add("REDIS_CA", "is not used where REDIS_URL has skip_verify: remove skip_verify there")
	}
	if len(wrong) > 0 || t == nil {
		return nil, wrong
	}
	if t.tls != nil {
		t.tls.RootCAs, t.tls.Certificates = config.RootCAs, config.Certificates
		t.HasCA, t.HasClientCert = config.RootCAs != nil, len(config.Certificates) > 0
	}
	return t, nil
}

// parseURL reads the URL by go-redis' parser of its kind. It first refuses what that parser accepts and ignores.
func parseURL(text string) (*Target, error) {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || !slices.Contains([]string{"redis", "rediss", "unix"}, u.Scheme) {
		return nil, errors.New(urlForms)
	}
	if strings.Contains(text, "#") {
		return nil, errors.New("has a #, and what follows would be ignored: write it as %23")
	}
	if err := checkAddress(u); err != nil {
		return nil, err
	}
	query, err := url.ParseQuery(u.RawQuery) // u.Query ignores mistakes
	if err != nil {
		return nil, errors.New(urlForms)
	}
	kind := Single
	switch {
	case query.Has("master_name"):
		kind = Sentinel
	case query.Has("addr"):
		kind = Cluster
	}
	if err := checkQuery(kind, u, query); err != nil {
		return nil, err
	}
	t := &Target{Kind: kind, host: u.Hostname(), dialTimeout: dialTimeout}
	if err := t.parse(text); err != nil || t.options.DB < 0 {
		return nil, errors.New(urlForms)
	}
	for _, address := range t.options.Addrs {
		if _, port, ok := cutPort(address); ok && !isPort(port) {
			return nil, errors.New("must have ports from 1 to 65535")
		}
	}
	if u.Scheme == "rediss" {
		t.tls = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.Unverified} //nolint:gosec // where the operator says so; `resetd check` warns
	}
	return t, nil
}

func cutPort(address string) (host, port string, ok bool) {
	i := strings.LastIndex(address, ":")
	if i < 0 || strings.HasPrefix(address, "/") {
		return address, "", false
	}
	return address[:i], address[i+1:], true
}

func isPort(text string) bool {
	port, err := strconv.Atoi(text)
	return err == nil && port >= 1 && port <= 65535
}

// checkAddress judges the part of the URL before the query.
func checkAddress(u *url.URL) error {
	switch {
	case u.Scheme == "unix" && (u.Host != "" || !strings.HasPrefix(u.Path, "/") || strings.Trim(u.Path, "/ ") == ""):
		return errors.New(oneSlashMore)
	case strings.ContainsAny(u.Hostname(), ", ") || strings.Count(u.Host, ":") > 1 && !strings.HasPrefix(u.Host, "["):
		return errors.New(urlForms) // several, as other libraries take them
	case u.Scheme != "unix" && u.Hostname() == "":
		return errors.New("names no host: " + urlForms)
	}
	if u.User != nil {
		// go-redis would not say who it is, and be the default user.
		if password, _ := u.User.Password(); password == "" {
			return errors.New("has no password before its @: write user:password@, :password@ for a password without a user, and neither where none is wanted")
		}
	}
	return nil
}

// checkQuery judges the parameters, and refuses what does not fit the kind.
func checkQuery(kind Kind, u *url.URL, query url.Values) error {
	for name := range query {
		switch {
		case slices.Contains(parameters[kind], name):
		case kind == Cluster && name == "db":
			return errDatabase
		case kind == Cluster && name == "skip_verify":
			return errors.New("has skip_verify, which is not for a Cluster: give its authority in REDIS_CA_FILE")
		case kind != Sentinel && (name == "username" || name == "password"):
			return errors.New("has a user or a password as a parameter, which is for Sentinels alone: write user:password@ before the host")
		default:
			// Its name may be a piece of a password.
			return errors.New("has a parameter that is not for " + string(kind) + ", which takes " + strings.Join(parameters[kind], ", ") +
				" (timeouts, retries and pools are not for setting; a & or ? in a password is written as %26 or %3F)")
		}
	}
	switch {
	case query.Has("skip_verify") && u.Scheme != "rediss":
		return errors.New("has skip_verify, which is for TLS: write rediss://, or remove it")
	case kind != Single && u.Scheme == "unix":
		return errors.New("is the socket of a single Redis: Sentinels and Clusters are reached by redis:// and rediss://")
	case kind == Cluster && strings.Trim(u.Path, "/") != "" && strings.Trim(u.Path, "/") != "0":
		return errDatabase
	case kind == Sentinel && strings.TrimSpace(query.Get("master_name")) == "":
		return errors.New("has an empty master_name: write the name that the Sentinels monitor, as in ?master_name=mymaster")
	case kind == Sentinel && query.Get("username") != "" && query.Get("password") == "":
		return errors.New("has a username without a password: write both, username=USER&password=PASSWORD")
	}
	return nil
}

var errDatabase = errors.New("has the number of a database, and a Cluster has only database 0: remove it")

// parse fills in the target by go-redis' parser.
func (t *Target) parse(text string) error {
	o := &t.options
	switch t.Kind {
	case Sentinel:
		read, err := redis.ParseFailoverURL(text)
		if err != nil {
			return err
		}
		o.Addrs, o.MasterName, o.DB, o.ClientName, o.Protocol = read.SentinelAddrs, read.MasterName, read.DB, read.ClientName, read.Protocol
		o.Username, o.Password, o.SentinelUsername, o.SentinelPassword = read.Username, read.Password, read.SentinelUsername, read.SentinelPassword
		t.Unverified = read.TLSConfig != nil && read.TLSConfig.InsecureSkipVerify
	case Cluster:
		read, err := redis.ParseClusterURL(text)
		if err != nil {
			return err
		}
		o.Addrs, o.ClientName, o.Protocol, o.Username, o.Password = read.Addrs, read.ClientName, read.Protocol, read.Username, read.Password
	default:
		read, err := redis.ParseURL(text)
		if err != nil {
			return err
		}
		o.Addrs, o.DB, o.ClientName, o.Protocol, o.Username, o.Password = []string{read.Addr}, read.DB, read.ClientName, read.Protocol, read.Username, read.Password
		t.Unverified = read.TLSConfig != nil && read.TLSConfig.InsecureSkipVerify
	}
	return nil
}

// parseCertificates reads the authority and the client's certificate.
func parseCertificates(c Config) (*tls.Config, setting.Mistakes) {
	var wrong setting.Mistakes
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		if config.RootCAs = readAuthorities(c.CA); config.RootCAs == nil {
			wrong.Add("REDIS_CA", "must be certificates in PEM, and nothing else; REDIS_CA_FILE names a file with them")
		}
	}
	switch {
	case c.ClientCert != "" && c.ClientKey == "":
		wrong.Add("REDIS_CLIENT_CERT", "needs its private key: set REDIS_CLIENT_KEY_FILE too")
	case c.ClientCert == "" && c.ClientKey != "":
		wrong.Add("REDIS_CLIENT_KEY", "needs its certificate: set REDIS_CLIENT_CERT_FILE too")
	case c.ClientCert != "":
		pair, err := tls.X509KeyPair([]byte(c.ClientCert), []byte(c.ClientKey))
		switch {
		case readAuthorities(c.ClientCert) == nil:
			wrong.Add("REDIS_CLIENT_CERT", "must be a certificate in PEM, and what leads to its authority after it; REDIS_CLIENT_CERT_FILE names a file with them")
		case err != nil:
			wrong.Add("REDIS_CLIENT_KEY", "must be the private key of REDIS_CLIENT_CERT, in PEM and not encrypted; REDIS_CLIENT_KEY_FILE names a file with it")
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, wrong
}

// readAuthorities reads certificates. It returns nil if there is none, or if the text has anything else.
func readAuthorities(text string) *x509.CertPool {
	pool := x509.NewCertPool()
	for rest, found := []byte(text), false; ; found = true {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if !found {
				return nil
			}
			return pool
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil
		}
		pool.AddCert(certificate)
	}
}
