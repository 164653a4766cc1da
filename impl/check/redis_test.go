//go:build full

package check

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
)

const redisIsWell = `ok      redis     counts and requests are kept there \((\d+ ms|under 1 ms)\)$`

// tryRedis tries settings with a Redis, and checks the line about it.
func tryRedis(t *testing.T, config redisclient.Config, want string) {
	t.Helper()
	tr := trial{set: func(c *Config) { c.Redis = target(t, config) }}
	if !strings.HasPrefix(want, "ok") {
		tr.want = []string{want}
	}
	if d := tr.do(t); !d.has(want) {
		t.Errorf("want %s, got:\n%s%v", want, d.out, d.err)
	}
}

func newRedis(t *testing.T) *redistest.Server {
	t.Helper()
	server := redistest.New(t)
	server.Password = "pass-of-the-redis-server"
	server.Start()
	return server
}

// TestRedis: a check finds the faults of a real Redis, and leaves it unchanged.
func TestRedis(t *testing.T) {
	server := newRedis(t)
	host, port, _ := net.SplitHostPort(server.Addr)
	asUser := func(user, password string) string {
		return "redis://" + user + ":" + password + "@" + net.JoinHostPort(host, port)
	}
	tlsPort := httptest.NewUnstartedServer(nil)
	tlsPort.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsPort.StartTLS()
	defer tlsPort.Close()
	const apart = ", and each instance would count limits for itself"
	for _, tt := range []struct {
		name          string
		before, after []any
		url           string
		want          string
	}{
		{name: "all right", url: server.URL(), want: redisIsWell},
		{name: "no password", url: "redis://" + server.Addr, want: `FAILED  redis     no count can be kept \(it says NOAUTH\)` + apart + `\. What to do: check user and password in REDIS_URL`},
		{name: "wrong password", url: asUser("", "wrong-pass"), want: `FAILED  redis     no count can be kept \(it says WRONGPASS\).*check user and password`},
		{
			name: "no scripts", before: []any{"ACL", "SETUSER", "small", "on", ">wrong-pass", "~resetd:*", "+@all", "-@scripting"}, after: []any{"ACL", "DELUSER", "small"},
			url: asUser("small", "wrong-pass"), want: `FAILED  redis     no count can be kept \(it says NOPERM\).*What to do: let that user run these commands`,
		},
		{
			name: "other keys", before: []any{"ACL", "SETUSER", "small", "on", ">wrong-pass", "~other:*", "+@all"}, after: []any{"ACL", "DELUSER", "small"},
			url: asUser("small", "wrong-pass"), want: `FAILED  redis     no count can be kept \(it says NOPERM\)`,
		},
		{
			name: "enough to count, and no streams", before: []any{"ACL", "SETUSER", "small", "on", ">wrong-pass", "~resetd:*", "+script|load", "+evalsha", "+eval", "+get", "+incr", "+pexpire", "+pttl", "+del"}, after: []any{"ACL", "DELUSER", "small"},
			url: asUser("small", "wrong-pass"), want: `FAILED  redis     no request can be kept \(it says NOPERM\), and a crash would lose what is accepted\. What to do: let that user run these commands`,
		},
		{
			name: "replica", before: []any{"REPLICAOF", "127.0.0.1", "1"}, after: []any{"REPLICAOF", "NO", "ONE"},
			url: server.URL(), want: `FAILED  redis     no count can be kept \(it says READONLY\)` + apart + `\. What to do: REDIS_URL leads to a replica`,
		},
		{
			name: "full", before: []any{"CONFIG", "SET", "maxmemory", "1"}, after: []any{"CONFIG", "SET", "maxmemory", "0"},
			url: server.URL(), want: `FAILED  redis     no count can be kept \(it says OOM\)` + apart + `\. What to do: it is full`,
		},
		{
			name: "evicts", before: []any{"CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"}, after: []any{"CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction"},
			url: server.URL(), want: `warning redis     counts are kept \((\d+ ms|under 1 ms)\), but its maxmemory-policy is allkeys-lru, .*What to do: set maxmemory-policy noeviction`,
		},
		{name: "slow", url: "redis://:" + server.Password + "@" + slowly(t, server.Addr, 150*time.Millisecond), want: `FAILED  redis     a count takes \d+ ms, and beyond 73 ms each instance would count limits for itself\. What to do: use a Redis in the same region`},
		{name: "TLS to plain", url: "rediss://:" + server.Password + "@" + server.Addr, want: `FAILED  redis     it cannot be reached \(.*\)` + apart + `\. What to do: .*rediss:// where it wants TLS`},
		{name: "plain to TLS", url: "redis://:" + server.Password + "@" + tlsPort.Listener.Addr().String(), want: `FAILED  redis     it cannot be reached \(.*\)` + apart},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				server.Do(tt.before...)
			}
			tryRedis(t, redisclient.Config{URL: tt.url}, tt.want)
			if tt.after != nil {
				server.Do(tt.after...)
			}
			if keys := server.Do("KEYS", "*").([]any); len(keys) > 0 {
				t.Errorf("it leaves %v behind", keys)
			}
		})
	}
}

// slowly returns an address that leads to another one with a delay.
func slowly(t *testing.T, to string, by time.Duration) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				return
			}
			go func() { _, _ = io.Copy(in, out); in.Close() }()
			go func() {
				defer out.Close()
				piece := make([]byte, 4096)
				for {
					n, err := in.Read(piece)
					if err != nil {
						return
					}
					time.Sleep(by)
					if _, err := out.Write(piece[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// TestTakesNoLimits: a check of a server's settings changes none of its limits, whose keys in Redis are known.
func TestTakesNoLimits(t *testing.T) {
	server := newRedis(t)
	trial{set: func(c *Config) { c.Redis = target(t, redisclient.Config{URL: server.URL()}) }, sendTo: knownEmail, mails: []string{knownEmail}}.do(t)
	if keys := server.Do("KEYS", "*").([]any); len(keys) > 0 {
		t.Errorf("it leaves %v", keys)
	}
	if counted := fmt.Sprint(server.Do("INFO", "stats")); !strings.Contains(counted, "expired_keys:0") {
		t.Error("a key was left to expire by itself")
	}
}

// TestLeastRights: with the rights that the advice and docs/operations.md list, all that resetd does in
// Redis works; without any one of these rights something does not.
func TestLeastRights(t *testing.T) {
	t.Parallel()
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rights := range []string{leastRights, sentinelRights} {
		if !strings.Contains(string(operations), "-@all "+rights+"\n") {
			t.Errorf("docs/operations.md does not list %s", rights)
		}
	}
	server := newRedis(t)
	address := "redis://small:wrong-pass@" + server.Addr + "/1"
	setUser := func(rights []string) {
		t.Helper()
		rule := []any{"ACL", "SETUSER", "small", "reset", "on", ">wrong-pass", "~resetd:*", "resetchannels", "-@all"}
		for _, right := range rights {
			rule = append(rule, right)
		}
		server.Do(rule...)
	}
	all := strings.Fields(leastRights)
	setUser(all)
	tryRedis(t, redisclient.Config{URL: address}, redisIsWell)
	for i, right := range all {
		if right == "+cluster|slots" {
			continue // only a Cluster needs it, see TestDeployments
		}
		t.Run("without "+right, func(t *testing.T) {
			setUser(append(append([]string{}, all[:i]...), all[i+1:]...))
			tryRedis(t, redisclient.Config{URL: address}, `FAILED  redis     no (count|request) can be kept \(it says NOPERM\)`)
		})
	}
}

// TestDeployments: each way to deploy Redis passes. If REDIS_URL is written for another way, the check says
// what to write.
func TestDeployments(t *testing.T) {
	t.Parallel()
	sentinels, cluster := redistest.StartSentinels(t), redistest.StartCluster(t)
	single := redistest.Start(t)
	for _, node := range append(append([]*redistest.Server{}, cluster.Nodes...), cluster.Replicas...) {
		rule := []any{"ACL", "SETUSER", "small", "on", ">wrong-pass", "~resetd:*", "resetchannels", "-@all"}
		for _, right := range strings.Fields(leastRights) {
			rule = append(rule, right)
		}
		node.Do(rule...)
	}
	for _, sentinel := range sentinels.Sentinels {
		rule := []any{"ACL", "SETUSER", "small", "on", ">wrong-pass", "allchannels", "-@all"}
		for _, right := range strings.Fields(sentinelRights) {
			rule = append(rule, right)
		}
		sentinel.Do(rule...)
	}
	of := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	sentinel, node := sentinels.Sentinels[0], cluster.Nodes[0]
	redisPassword := sentinels.Primary.Password
	for _, tt := range []struct{ name, url, want string }{
		{name: "Sentinels", url: sentinels.URL(), want: redisIsWell},
		{name: "Sentinels, with least rights", url: of("redis://small:wrong-pass@%s?master_name=mymaster&password=%s", sentinel.Addr, redisPassword), want: redisIsWell},
		{name: "Cluster", url: cluster.URL(), want: redisIsWell},
		{name: "Cluster, with least rights", url: of("redis://small:wrong-pass@%s?addr=%s", node.Addr, cluster.Nodes[1].Addr), want: redisIsWell},
		{name: "Cluster, by one address", url: of("redis://%s?addr=%s", node.Addr, node.Addr), want: redisIsWell},
		{name: "Cluster, by a replica", url: of("redis://%s?addr=%s", cluster.Replicas[0].Addr, cluster.Replicas[0].Addr), want: redisIsWell},

		{
			name: "a Sentinel as a single Redis", url: of("redis://:pass-of-the-sentinels@%s", sentinel.Addr),
			want: `FAILED  redis     no count can be kept \(REDIS_URL is written for a single Redis, and leads to a Sentinel's port\), and .*What to do: write redis://host:26379\?master_name=NAME`,
		},
		{
			name: "a Sentinel as a single Redis, its database", url: of("redis://:pass-of-the-sentinels@%s/3", sentinel.Addr),
			want: `FAILED  redis     no count can be kept \(REDIS_URL is written for a single Redis, and leads to a Sentinel's port\)`,
		},
		{
			name: "Sentinels as a Cluster", url: of("redis://:pass-of-the-sentinels@%s?addr=%s", sentinel.Addr, sentinels.Sentinels[1].Addr),
			want: `FAILED  redis     .*written for a Redis Cluster, and leads to a Sentinel's port\), .*What to do: write redis://host:26379`,
		},
		{
			name: "a node as a single Redis", url: node.URL(),
			want: `FAILED  redis     no count can be kept \(it says MOVED\), .*What to do: REDIS_URL leads to a node of a Cluster: write redis://user:password@host:6379\?addr=host:6379`,
		},
		{
			name: "a node as a Sentinel", url: of("redis://%s?master_name=mymaster", node.Addr),
			want: `FAILED  redis     .*written for Redis behind Sentinels, and leads to a node of a Cluster\), .*What to do: write redis://user:password@host:6379\?addr=`,
		},
		{
			name: "a single Redis as a Sentinel", url: of("redis://%s?master_name=mymaster", single.Addr),
			want: `FAILED  redis     .*written for Redis behind Sentinels, and leads to a single Redis\), .*What to do: write redis://user:password@host:6379/0`,
		},
		{
			name: "a single Redis as a Cluster", url: of("redis://%s?addr=%s", single.Addr, single.Addr),
			want: `FAILED  redis     .*written for a Redis Cluster, and leads to a single Redis\), .*without master_name and addr`,
		},
		{name: "a replica as a single Redis", url: sentinels.Replica.URL(), want: `FAILED  redis     no count can be kept \(it says READONLY\).*give the address of the primary, or of its Sentinels`},

		{
			name: "a name that the Sentinels do not know", url: strings.Replace(sentinels.URL(), "mymaster", "theirs", 1),
			want: `FAILED  redis     no count can be kept \(the Sentinels do not know that name\), .*write the name that they monitor as master_name`,
		},
		{
			name: "no password of the Sentinels", url: of("redis://%s?master_name=mymaster&password=%s", sentinel.Addr, redisPassword),
			want: `FAILED  redis     no count can be kept \(a Sentinel says NOAUTH\), .*check the user and the password of the Sentinels, which stand before the @`,
		},
		{
			name: "a wrong password of the Sentinels", url: of("redis://:wrong-pass@%s?master_name=mymaster&password=%s", sentinel.Addr, redisPassword),
			want: `FAILED  redis     no count can be kept \(a Sentinel says WRONGPASS\)`,
		},
		{
			name: "Redis' password as the Sentinels'", url: of("redis://:pass-of-the-sentinels@%s?master_name=mymaster", sentinel.Addr),
			want: `FAILED  redis     no count can be kept \(it says NOAUTH\), .*username and password after the \? in REDIS_URL`,
		},
		{name: "nothing listens", url: of("redis://:wrong-pass@%s?master_name=mymaster", redistest.New(t).Addr), want: `FAILED  redis     it cannot be reached \(connection refused\)`},
		{
			name: "Sentinels, the first of which is away", url: of("redis://:pass-of-the-sentinels@%s?master_name=mymaster&password=%s&addr=%s", redistest.New(t).Addr, redisPassword, sentinel.Addr),
			want: redisIsWell,
		},
		{name: "a Cluster, the first node of which is away", url: of("redis://%s?addr=%s", redistest.New(t).Addr, node.Addr), want: redisIsWell},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 9 { // once, a node of a Cluster was sometimes taken for a single Redis
				tryRedis(t, redisclient.Config{URL: tt.url}, tt.want)
				if tt.name != "a node as a single Redis" {
					break
				}
			}
		})
	}
	for _, keys := range [][]string{single.Keys(), cluster.Keys(), sentinels.Primary.Keys()} {
		if len(keys) > 0 {
			t.Errorf("it leaves %v behind", keys)
		}
	}
}

// TestTLS: what is wrong with a certificate has its own advice each.
func TestTLS(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour)
	authority, other := redistest.NewAuthority(t), redistest.NewAuthority(t)
	certificate, key := authority.Issue(soon, "client")
	foreign, foreignKey := other.Issue(soon, "client")
	old, oldKey := authority.Issue(time.Now().Add(-time.Hour), "client")
	serve := func(until time.Time, ask bool, hosts ...string) string {
		server := redistest.New(t)
		server.Args = []string{"--requirepass", "wrong-pass"}
		if hosts == nil {
			hosts = []string{server.Host()}
		}
		address := server.UseTLS(authority, until, ask, hosts...)
		server.Start()
		return "rediss://:wrong-pass@" + address
	}
	plain, expired, named, mutual := serve(soon, false), serve(time.Now().Add(-time.Hour), false), serve(soon, false, "redis.internal"), serve(soon, true)
	const apart = ", and each instance would count limits for itself\\. What to do: "
	for _, tt := range []struct {
		name, url, want string
		config          redisclient.Config
	}{
		{name: "the authority is known", url: plain, config: redisclient.Config{CA: authority.PEM}, want: redisIsWell},
		{name: "the authority is one of two", url: plain, config: redisclient.Config{CA: other.PEM + authority.PEM}, want: redisIsWell},
		{name: "the authority is not known", url: plain, want: `FAILED  redis     it cannot be reached \(its certificate is signed by an unknown authority\)` + apart + `give the certificate of its authority in REDIS_CA_FILE`},
		{name: "another authority", url: plain, config: redisclient.Config{CA: other.PEM}, want: `FAILED  redis     it cannot be reached \(its certificate is signed by an unknown authority\)` + apart + `REDIS_CA_FILE has the certificate of another authority`},
		{name: "not verified", url: plain + "?skip_verify=true", want: `warning redis     REDIS_URL has skip_verify: .*What to do: remove it, and give the certificate of its authority in REDIS_CA_FILE`},
		{name: "expired", url: expired, config: redisclient.Config{CA: authority.PEM}, want: `FAILED  redis     it cannot be reached \(its certificate has expired, or is not valid yet\)` + apart + `renew its certificate`},
		{name: "another name", url: named, config: redisclient.Config{CA: authority.PEM}, want: `FAILED  redis     it cannot be reached \(its certificate is for another host\)` + apart + `write a host in REDIS_URL that the certificate is for`},
		{name: "a client's certificate", url: mutual, config: redisclient.Config{CA: authority.PEM, ClientCert: certificate, ClientKey: key}, want: redisIsWell},
		{name: "no client's certificate", url: mutual, config: redisclient.Config{CA: authority.PEM}, want: `FAILED  redis     it cannot be reached \(it does not take this client's TLS certificate\)` + apart + `Redis asks for a client's certificate: give one in REDIS_CLIENT_CERT_FILE`},
		{name: "another authority's client", url: mutual, config: redisclient.Config{CA: authority.PEM, ClientCert: foreign, ClientKey: foreignKey}, want: `FAILED  redis     it cannot be reached \(it does not take this client's TLS certificate\)` + apart + `Redis does not take the certificate in REDIS_CLIENT_CERT_FILE`},
		{name: "an expired client's certificate", url: mutual, config: redisclient.Config{CA: authority.PEM, ClientCert: old, ClientKey: oldKey}, want: `FAILED  redis     it cannot be reached \(it does not take this client's TLS certificate\)` + apart + `Redis does not take`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.URL = tt.url
			tryRedis(t, tt.config, tt.want)
		})
	}
}
