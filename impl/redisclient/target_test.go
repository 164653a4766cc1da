package redisclient

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// TestURLs: the documented forms, and what each of them is taken for.
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

// TestWrongURLs: what cannot work is refused with the way out, and nothing of it is repeated.
func TestWrongURLs(t *testing.T) {
	for _, tt := range []struct{ name, url, want string }{
		{"no URL", "hunter2", "must be redis://"},
		{"no scheme", "hunter2:6379", "must be redis://"},
		{"another scheme", "http://:hunter2@host", "must be redis://"},
		{"other libraries' scheme", "redis+sentinel://:hunter2@host", "?master_name=NAME"},
		{"no slashes", "redis:hunter2:6379", "must be redis://"},
		{"no host", "redis://", "names no host"},
		{"no host, but a port", "redis://:hunter2@:6379", "names no host"},
		{"two hosts", "redis://hunter2:6379,other:6379", "?addr=HOST:PORT"},
		{"port 0", "redis://hunter2:0", "ports from 1 to 65535"},
		{"port 65536", "redis://hunter2:65536", "ports from 1 to 65535"},
		{"slash in the password", "redis://:hunter2/x@localhost:1", "written as %XX"},
		{"hash in the password", "redis://:6379#hunter2@host", "write it as %23"},
		{"hash at the end", "redis://host/0#hunter2", "write it as %23"},
		{"percent in the password", "redis://%zz:hunter2@localhost", "written as %XX"},
		{"question mark in the password", "redis://host?hunter2@host", "written as %26 or %3F"},
		{"semicolon", "redis://host?db=1;hunter2", "must be redis://"},
		{"user without a password", "redis://hunter2@host", "has no password before its @"},
		{"user with an empty password", "redis://hunter2:@host", "has no password before its @"},
		{"empty password", "redis://:@hunter2", "has no password before its @"},
		{"socket, user without a password", "unix://hunter2@/run/redis.sock", "has no password before its @"},
		{"database of letters", "redis://localhost/hunter2", "must be redis://"},
		{"database below 0", "redis://hunter2/-1", "must be redis://"},
		{"a path", "redis://hunter2/0/1", "must be redis://"},
		{"unknown parameter", "redis://localhost?hunter2=1", "which takes client_name, db, protocol, skip_verify ("},
		{"a time-out", "redis://hunter2?read_timeout=1h", "timeouts, retries and pools are not for setting"},
		{"password as a parameter", "redis://localhost?password=hunter2", "for Sentinels alone"},
		{"unverified, without TLS", "redis://hunter2?skip_verify=true", "write rediss://"},
		{"neither yes nor no", "rediss://localhost?skip_verify=hunter2", "must be redis://"},
		{"socket, two slashes", "unix://hunter2/redis.sock", "three slashes"},
		{"socket, no path", "unix://", "three slashes"},
		{"socket, relative", "unix:hunter2", "must be redis://"},
		{"socket of Sentinels", "unix:///hunter2?master_name=main", "is the socket of a single Redis"},
		{"socket of a Cluster", "unix:///hunter2?addr=host:1", "is the socket of a single Redis"},
		{"Sentinels without a name", "redis://host?master_name=&addr=hunter2:1", "has an empty master_name"},
		{"Sentinels, address without a port", "redis://host?master_name=main&addr=hunter2", "must be redis://"},
		{"Sentinels, replicas", "redis://hunter2?master_name=main&replica_only=true", "has a parameter that is not for Redis behind Sentinels"},
		{"Sentinels, user without a password", "redis://host?master_name=main&username=hunter2", "username without a password"},
		{"Sentinels, port 0", "redis://host?master_name=main&addr=hunter2:0", "ports from 1 to 65535"},
		{"Cluster, database 1", "redis://hunter2/1?addr=host:1", "has only database 0"},
		{"Cluster, db", "redis://hunter2?db=1&addr=host:1", "has only database 0"},
		{"Cluster, address without a port", "redis://host?addr=hunter2", "must be redis://"},
		{"Cluster, unverified", "rediss://hunter2?addr=host:1&skip_verify=true", "REDIS_CA_FILE"},
		{"Cluster, replicas", "redis://hunter2?addr=host:1&route_randomly=true", "has a parameter that is not for a Redis Cluster"},
		{"Cluster, password as a parameter", "redis://host?addr=host:1&password=hunter2", "for Sentinels alone"},
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

// TestWrongCertificates: each mistake is named by its setting, and all of them together.
func TestWrongCertificates(t *testing.T) {
	authority := redistest.NewAuthority(t)
	certificate, key := authority.Issue(time.Now().Add(time.Hour), "client")
	_, otherKey := authority.Issue(time.Now().Add(time.Hour), "client")
	for _, tt := range []struct {
		name   string
		config Config
		want   []string // the beginning of each mistake
	}{
		{"nothing", Config{}, nil},
		{"all", Config{"rediss://host", authority.PEM, certificate, key}, nil},
		{"two authorities", Config{"rediss://host", authority.PEM + "\n" + redistest.NewAuthority(t).PEM, "", ""}, nil},
		{"all for a Cluster", Config{"rediss://host?addr=host:1", authority.PEM, certificate, key}, nil},
		{"without TLS", Config{"redis://host", authority.PEM, certificate, key}, []string{"REDIS_CA: is for TLS", "REDIS_CLIENT_CERT: is for TLS", "REDIS_CLIENT_KEY: is for TLS"}},
		{"without Redis", Config{"", authority.PEM, "", ""}, []string{"REDIS_CA: is for TLS"}},
		{"socket", Config{"unix:///run/redis.sock", authority.PEM, "", ""}, []string{"REDIS_CA: is for TLS"}},
		{"not verified", Config{"rediss://host?skip_verify=true", authority.PEM, "", ""}, []string{"REDIS_CA: is not used where REDIS_URL has skip_verify"}},
		{"a path", Config{"rediss://host", "/etc/hunter2.pem", "", ""}, []string{"REDIS_CA: must be certificates in PEM"}},
		{"a key as the authority", Config{"rediss://host", key, "", ""}, []string{"REDIS_CA: must be certificates in PEM"}},
		{"a broken authority", Config{"rediss://host", strings.Replace(authority.PEM, "M", "A", 3), "", ""}, []string{"REDIS_CA: must be certificates in PEM"}},
		{"no key", Config{"rediss://host", "", certificate, ""}, []string{"REDIS_CLIENT_CERT: needs its private key: set REDIS_CLIENT_KEY_FILE"}},
		{"no certificate", Config{"rediss://host", "", "", key}, []string{"REDIS_CLIENT_KEY: needs its certificate: set REDIS_CLIENT_CERT_FILE"}},
		{"another's key", Config{"rediss://host", "", certificate, otherKey}, []string{"REDIS_CLIENT_KEY: must be the private key of REDIS_CLIENT_CERT"}},
		{"no PEM at all", Config{"rediss://host", "", "hunter2", "hunter2"}, []string{"REDIS_CLIENT_CERT: must be a certificate in PEM"}},
		{"everything", Config{"redis://hunter2@host", "hunter2", "", key}, []string{"REDIS_URL: has no password", "REDIS_CA: must be certificates", "REDIS_CLIENT_KEY: needs its certificate"}},
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
