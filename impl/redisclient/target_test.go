package redisclient

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// TestURLs: each documented form of REDIS_URL has this meaning.
func TestURLs(t *testing.T) {
	for _, tt := range []struct {
		name, url string
		kind      Kind
		addresses []string
		user      string // and password
		sentinel  string // the Sentinels' user and password
		database  int
		unsafe    bool
	}{
		{name: "host", url: "redis://host", kind: Single, addresses: []string{"host:6379"}, user: ":"},
		{name: "all", url: "redis://u:p%40ss%2Fword@host:6380/3", kind: Single, addresses: []string{"host:6380"}, user: "u:p@ss/word", database: 3},
		{name: "password alone", url: "redis://:p@host", kind: Single, addresses: []string{"host:6379"}, user: ":p"},
		{name: "IPv6", url: "redis://[2001:db8::1]:6380/", kind: Single, addresses: []string{"[2001:db8::1]:6380"}, user: ":"},
		{name: "parameters", url: "redis://host?db=2&client_name=resetd&protocol=2", kind: Single, addresses: []string{"host:6379"}, user: ":", database: 2},
		{name: "TLS", url: "rediss://host", kind: Single, addresses: []string{"host:6379"}, user: ":"},
		{name: "TLS, unverified", url: "rediss://host?skip_verify=true", kind: Single, addresses: []string{"host:6379"}, user: ":", unsafe: true},
		{name: "TLS, verified in words", url: "rediss://host?skip_verify=false", kind: Single, addresses: []string{"host:6379"}, user: ":"},
		{name: "socket", url: "unix:///run/redis.sock", kind: Single, addresses: []string{"/run/redis.sock"}, user: ":"},
		{name: "socket, all", url: "unix://u:p@/run/redis.sock?db=4", kind: Single, addresses: []string{"/run/redis.sock"}, user: "u:p", database: 4},
		{name: "Sentinel", url: "redis://host:26379?master_name=main", kind: Sentinel, addresses: []string{"host:26379"}, user: ":", sentinel: ":"},
		{
			name: "Sentinels", url: "rediss://s:t@host:26379/5?master_name=main&addr=other:26379&addr=third:26379&username=u&password=p%26&skip_verify=1",
			kind: Sentinel, addresses: []string{"host:26379", "other:26379", "third:26379"}, user: "u:p&", sentinel: "s:t", database: 5, unsafe: true,
		},
		{name: "Cluster", url: "redis://u:p@host:6379?addr=other:6380", kind: Cluster, addresses: []string{"host:6379", "other:6380"}, user: "u:p"},
		{name: "Cluster, database 0", url: "rediss://host/0?addr=host:6379", kind: Cluster, addresses: []string{"host:6379", "host:6379"}, user: ":"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target, wrong := Parse(Config{URL: tt.url})
			if wrong != nil {
				t.Fatal(wrong)
			}
			o := target.options
			if target.Kind != tt.kind || !slices.Equal(o.Addrs, tt.addresses) || o.Username+":"+o.Password != tt.user || o.DB != tt.database ||
				tt.kind == Sentinel && (o.SentinelUsername+":"+o.SentinelPassword != tt.sentinel || o.MasterName != "main") {
				t.Errorf("%s: %+v", target.Kind, o)
			}
			if target.Unverified != tt.unsafe || (target.tls != nil) != strings.HasPrefix(tt.url, "rediss:") || target.tls != nil && target.tls.InsecureSkipVerify != tt.unsafe {
				t.Errorf("TLS: %v, unverified: %v", target.tls != nil, target.Unverified)
			}
		})
	}
}

// TestWrongURLs: URLs that cannot work are refused. The message says what to do, and repeats nothing of the URL.
func TestWrongURLs(t *testing.T) {
	for _, tt := range []struct{ name, url, want string }{
		{name: "no URL", url: "hunter2", want: "must be redis://"},
		{name: "no scheme", url: "hunter2:6379", want: "must be redis://"},
		{name: "another scheme", url: "http://:hunter2@host", want: "must be redis://"},
		{name: "other libraries' scheme", url: "redis+sentinel://:hunter2@host", want: "?master_name=NAME"},
		{name: "no slashes", url: "redis:hunter2:6379", want: "must be redis://"},
		{name: "no host", url: "redis://", want: "names no host"},
		{name: "no host, but a port", url: "redis://:hunter2@:6379", want: "names no host"},
		{name: "two hosts", url: "redis://hunter2:6379,other:6379", want: "?addr=HOST:PORT"},
		{name: "port 0", url: "redis://hunter2:0", want: "ports from 1 to 65535"},
		{name: "port 65536", url: "redis://hunter2:65536", want: "ports from 1 to 65535"},
		{name: "slash in the password", url: "redis://:hunter2/x@localhost:1", want: "written as %XX"},
		{name: "hash in the password", url: "redis://:6379#hunter2@host", want: "write it as %23"},
		{name: "hash at the end", url: "redis://host/0#hunter2", want: "write it as %23"},
		{name: "percent in the password", url: "redis://%zz:hunter2@localhost", want: "written as %XX"},
		{name: "question mark in the password", url: "redis://host?hunter2@host", want: "written as %26 or %3F"},
		{name: "semicolon", url: "redis://host?db=1;hunter2", want: "must be redis://"},
		{name: "user without a password", url: "redis://hunter2@host", want: "has no password before its @"},
		{name: "user with an empty password", url: "redis://hunter2:@host", want: "has no password before its @"},
		{name: "empty password", url: "redis://:@hunter2", want: "has no password before its @"},
		{name: "socket, user without a password", url: "unix://hunter2@/run/redis.sock", want: "has no password before its @"},
		{name: "database of letters", url: "redis://localhost/hunter2", want: "must be redis://"},
		{name: "database below 0", url: "redis://hunter2/-1", want: "must be redis://"},
		{name: "a path", url: "redis://hunter2/0/1", want: "must be redis://"},
		{name: "unknown parameter", url: "redis://localhost?hunter2=1", want: "which takes client_name, db, protocol, skip_verify ("},
		{name: "a time-out", url: "redis://hunter2?read_timeout=1h", want: "timeouts, retries and pools are not for setting"},
		{name: "password as a parameter", url: "redis://localhost?password=hunter2", want: "for Sentinels alone"},
		{name: "unverified, without TLS", url: "redis://hunter2?skip_verify=true", want: "write rediss://"},
		{name: "neither yes nor no", url: "rediss://localhost?skip_verify=hunter2", want: "must be redis://"},
		{name: "socket, two slashes", url: "unix://hunter2/redis.sock", want: "three slashes"},
		{name: "socket, no path", url: "unix://", want: "three slashes"},
		{name: "socket, relative", url: "unix:hunter2", want: "must be redis://"},
		{name: "socket of Sentinels", url: "unix:///hunter2?master_name=main", want: "is the socket of a single Redis"},
		{name: "socket of a Cluster", url: "unix:///hunter2?addr=host:1", want: "is the socket of a single Redis"},
		{name: "Sentinels without a name", url: "redis://host?master_name=&addr=hunter2:1", want: "has an empty master_name"},
		{name: "Sentinels, address without a port", url: "redis://host?master_name=main&addr=hunter2", want: "must be redis://"},
		{name: "Sentinels, replicas", url: "redis://hunter2?master_name=main&replica_only=true", want: "has a parameter that is not for Redis behind Sentinels"},
		{name: "Sentinels, user without a password", url: "redis://host?master_name=main&username=hunter2", want: "username without a password"},
		{name: "Sentinels, port 0", url: "redis://host?master_name=main&addr=hunter2:0", want: "ports from 1 to 65535"},
		{name: "Cluster, database 1", url: "redis://hunter2/1?addr=host:1", want: "has only database 0"},
		{name: "Cluster, db", url: "redis://hunter2?db=1&addr=host:1", want: "has only database 0"},
		{name: "Cluster, address without a port", url: "redis://host?addr=hunter2", want: "must be redis://"},
		{name: "Cluster, unverified", url: "rediss://hunter2?addr=host:1&skip_verify=true", want: "REDIS_CA_FILE"},
		{name: "Cluster, replicas", url: "redis://hunter2?addr=host:1&route_randomly=true", want: "has a parameter that is not for a Redis Cluster"},
		{name: "Cluster, password as a parameter", url: "redis://host?addr=host:1&password=hunter2", want: "for Sentinels alone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target, wrong := Parse(Config{URL: tt.url})
			if target != nil || len(wrong) != 1 || wrong[0].Setting != "REDIS_URL" || !strings.Contains(wrong[0].Text, tt.want) {
				t.Fatalf("%+v, %v, want %q", target, wrong, tt.want)
			}
			if strings.Contains(wrong[0].Text, "hunter2") {
				t.Errorf("it repeats the URL: %s", wrong[0].Text)
			}
		})
	}
}

// TestWrongCertificates: each mistake names its setting, and all mistakes are named together.
func TestWrongCertificates(t *testing.T) {
	authority := redistest.NewAuthority(t)
	certificate, key := authority.Issue(time.Now().Add(time.Hour), "client")
	_, otherKey := authority.Issue(time.Now().Add(time.Hour), "client")
	for _, tt := range []struct {
		name   string
		config Config
		want   []string // the beginning of each mistake
	}{
		{name: "nothing", config: Config{}, want: nil},
		{name: "all", config: Config{URL: "rediss://host", CA: authority.PEM, ClientCert: certificate, ClientKey: key}, want: nil},
		{name: "two authorities", config: Config{URL: "rediss://host", CA: authority.PEM + "\n" + redistest.NewAuthority(t).PEM}, want: nil},
		{name: "all for a Cluster", config: Config{URL: "rediss://host?addr=host:1", CA: authority.PEM, ClientCert: certificate, ClientKey: key}, want: nil},
		{
			name: "without TLS", config: Config{URL: "redis://host", CA: authority.PEM, ClientCert: certificate, ClientKey: key},
			want: []string{"REDIS_CA: is for TLS", "REDIS_CLIENT_CERT: is for TLS", "REDIS_CLIENT_KEY: is for TLS"},
		},
		{name: "without Redis", config: Config{URL: "", CA: authority.PEM}, want: []string{"REDIS_CA: is for TLS"}},
		{name: "socket", config: Config{URL: "unix:///run/redis.sock", CA: authority.PEM}, want: []string{"REDIS_CA: is for TLS"}},
		{name: "not verified", config: Config{URL: "rediss://host?skip_verify=true", CA: authority.PEM}, want: []string{"REDIS_CA: is not used where REDIS_URL has skip_verify"}},
		{name: "a path", config: Config{URL: "rediss://host", CA: "/etc/hunter2.pem"}, want: []string{"REDIS_CA: must be certificates in PEM"}},
		{name: "a key as the authority", config: Config{URL: "rediss://host", CA: key}, want: []string{"REDIS_CA: must be certificates in PEM"}},
		{name: "a broken authority", config: Config{URL: "rediss://host", CA: strings.Replace(authority.PEM, "M", "A", 3)}, want: []string{"REDIS_CA: must be certificates in PEM"}},
		{name: "no key", config: Config{URL: "rediss://host", ClientCert: certificate}, want: []string{"REDIS_CLIENT_CERT: needs its private key: set REDIS_CLIENT_KEY_FILE"}},
		{name: "no certificate", config: Config{URL: "rediss://host", ClientKey: key}, want: []string{"REDIS_CLIENT_KEY: needs its certificate: set REDIS_CLIENT_CERT_FILE"}},
		{name: "another's key", config: Config{URL: "rediss://host", ClientCert: certificate, ClientKey: otherKey}, want: []string{"REDIS_CLIENT_KEY: must be the private key of REDIS_CLIENT_CERT"}},
		{name: "no PEM at all", config: Config{URL: "rediss://host", ClientCert: "hunter2", ClientKey: "hunter2"}, want: []string{"REDIS_CLIENT_CERT: must be a certificate in PEM"}},
		{
			name: "everything", config: Config{URL: "redis://hunter2@host", CA: "hunter2", ClientKey: key},
			want: []string{"REDIS_URL: has no password", "REDIS_CA: must be certificates", "REDIS_CLIENT_KEY: needs its certificate"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target, wrong := Parse(tt.config)
			if (target == nil) != (len(tt.want) > 0 || tt.config.URL == "") || len(wrong) != len(tt.want) {
				t.Fatalf("%+v, %v, want %q", target, wrong, tt.want)
			}
			for i, mistake := range wrong {
				if got := mistake.Setting + ": " + mistake.Text; !strings.HasPrefix(got, tt.want[i]) || strings.Contains(got, "hunter2") {
					t.Errorf("%s, want %s", got, tt.want[i])
				}
			}
		})
	}
}
