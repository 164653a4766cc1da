package redistest

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// slots is the number of slots of a Cluster.
const slots = 16384

// Cluster is a Redis Cluster of three nodes with keys, each with a replica.
type Cluster struct {
	Nodes, Replicas []*Server // a replica of each node, in the same order

	tb testing.TB
}

// StartCluster starts a Cluster, and returns when its nodes know each other.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	for i := range 6 {
		s := New(tb)
		s.Args = []string{
			// A replica takes over when Fail says so, and not when the machine is busy.
			"--cluster-enabled", "yes", "--cluster-replica-no-failover", "yes",
			"--repl-diskless-sync-delay", "0", "--cluster-announce-ip", s.Host(),
		}
		s.Start()
		if i < 3 {
			c.Nodes = append(c.Nodes, s)
		} else {
			c.Replicas = append(c.Replicas, s)
		}
	}
	for i, node := range c.all() {
		node.Do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i > 0 {
			node.Do("CLUSTER", "MEET", c.Nodes[0].Host(), c.Nodes[0].Port())
		}
	}
	for i, node := range c.Nodes {
		node.Do("CLUSTER", "ADDSLOTSRANGE", i*slots/3, (i+1)*slots/3-1)
	}
	c.wait("all nodes know all", func(node *Server) bool { return strings.Count(c.nodes(node), "connected") >= 6 })
	for i, replica := range c.Replicas {
		replica.Do("CLUSTER", "REPLICATE", c.Nodes[i].Do("CLUSTER", "MYID"))
	}
	c.wait("all slots are served, and replicas follow", func(node *Server) bool {
		info, _ := node.Do("CLUSTER", "INFO").(string)
		return strings.Contains(info, "cluster_state:ok") && strings.Count(c.nodes(node), "slave") == 3
	})
	for _, replica := range c.Replicas {
		until(tb, "a replica has what its primary has", func() bool {
			info, _ := replica.Do("INFO", "replication").(string)
			return strings.Contains(info, "master_link_status:up")
		})
	}
	return c
}

func (c *Cluster) all() []*Server { return append(append([]*Server{}, c.Nodes...), c.Replicas...) }

func (c *Cluster) nodes(of *Server) string {
	text, _ := of.Do("CLUSTER", "NODES").(string)
	return text
}

func (c *Cluster) wait(what string, is func(*Server) bool) {
	c.tb.Helper()
	for _, node := range c.all() {
		until(c.tb, what, func() bool { return is(node) })
	}
}

// URL returns REDIS_URL for the Cluster.
func (c *Cluster) URL() string {
	return "redis://" + c.Nodes[0].Addr + "?addr=" + url.QueryEscape(c.Nodes[1].Addr) + "&addr=" + url.QueryEscape(c.Nodes[2].Addr)
}

// NodeOf returns the place of the node that a key is on.
func (c *Cluster) NodeOf(key string) int {
	slot := c.Slot(key)
	for i, node := range c.Nodes {
		for _, shard := range node.Do("CLUSTER", "SLOTS").([]any) {
			shard := shard.([]any)
			if first, last := shard[0].(int64), shard[1].(int64); slot < first || slot > last {
				continue
			}
			if owner := shard[2].([]any); fmt.Sprint(owner[0], ":", owner[1]) == node.Addr {
				return i
			}
		}
	}
	c.tb.Fatalf("no node has the slot of %s", key)
	return 0
}

// Slot returns the slot of a key.
func (c *Cluster) Slot(key string) int64 { return c.Nodes[0].Do("CLUSTER", "KEYSLOT", key).(int64) }

// Move moves the slot of a key, with all its keys, to another node, like redis-cli's reshard. It calls the function
// when the keys have moved and the slot has not.
func (c *Cluster) Move(key string, to int, meanwhile func()) {
	c.tb.Helper()
	slot, from := c.Slot(key), c.NodeOf(key)
	source, target := c.Nodes[from], c.Nodes[to]
	sourceID, targetID := source.Do("CLUSTER", "MYID"), target.Do("CLUSTER", "MYID")
	target.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", sourceID)
	source.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", targetID)
	migrate := func() {
		for _, key := range source.Do("CLUSTER", "GETKEYSINSLOT", slot, 1000).([]any) {
			source.Do("MIGRATE", target.Host(), target.Port(), key, 0, 5000)
		}
	}
	migrate()
	if meanwhile != nil {
		meanwhile()
		migrate()
	}
	target.Do("CLUSTER", "SETSLOT", slot, "NODE", targetID)
	source.Do("CLUSTER", "SETSLOT", slot, "NODE", targetID)
	for i, node := range c.Nodes {
		if i != from && i != to {
			node.Do("CLUSTER", "SETSLOT", slot, "NODE", targetID)
		}
	}
}

// Fail kills a node, if it was not killed before, and puts its replica into its place. It returns when all other nodes
// say so: a client may ask any of them.
func (c *Cluster) Fail(node int) {
	c.tb.Helper()
	c.Nodes[node].Kill()
	replica := c.Replicas[node]
	replica.Do("CLUSTER", "FAILOVER", "TAKEOVER")
	c.Nodes[node] = replica
	id := replica.Do("CLUSTER", "MYID").(string)
	c.wait("a replica has taken over", func(node *Server) bool {
		for line := range strings.Lines(c.nodes(node)) { // ID, address, flags, five more, and slots of a node that has some
			if fields := strings.Fields(line); fields[0] == id {
				return strings.Contains(fields[2], "master") && len(fields) > 8
			}
		}
		return false
	})
}

// Keys returns all keys but those of a limiter's probe.
func (c *Cluster) Keys() (keys []string) {
	for _, node := range c.Nodes {
		keys = append(keys, node.Keys()...)
	}
	return keys
}

// Sentinels are three Sentinels with a primary and its replica.
type Sentinels struct {
	Primary, Replica *Server
	Sentinels        []*Server

	tb testing.TB
}

// Name is the name of the primary at the Sentinels.
const Name = "mymaster"

// StartSentinels starts them, and returns when all know each other. The servers have one password, the Sentinels
// another.
func StartSentinels(tb testing.TB) *Sentinels {
	tb.Helper()
	s := &Sentinels{tb: tb, Primary: New(tb), Replica: New(tb)}
	s.Primary.Password, s.Replica.Password = "pass-of-the-redis-server", "pass-of-the-redis-server"
	s.Primary.Args = []string{"--repl-diskless-sync-delay", "0", "--replica-announce-ip", s.Primary.Host()}
	s.Primary.Start()
	s.Replica.Args = []string{"--replicaof", s.Primary.Host() + " " + s.Primary.Port(), "--replica-announce-ip", s.Replica.Host()}
	s.Replica.Start()
	for range 3 {
		sentinel := New(tb)
		sentinel.Password = "pass-of-the-sentinels"
		sentinel.startSentinel(s.Primary)
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	for _, sentinel := range s.Sentinels {
		until(tb, "all Sentinels know all", func() bool {
			others, _ := sentinel.Do("SENTINEL", "SENTINELS", Name).([]any)
			replicas, _ := sentinel.Do("SENTINEL", "REPLICAS", Name).([]any)
			return len(others) == 2 && len(replicas) == 1 && strings.Contains(fmt.Sprint(replicas), "master-link-status:ok")
		})
	}
	return s
}

// startSentinel starts a Sentinel, which needs a writable configuration file.
func (s *Server) startSentinel(monitored *Server) {
	s.tb.Helper()
	lines := []string{
		"port " + s.Port(), "bind " + s.Host(), "dir " + s.Dir, "requirepass " + s.Password, "sentinel sentinel-pass " + s.Password,
		"sentinel announce-ip " + s.Host(),
		"sentinel monitor " + Name + " " + monitored.Host() + " " + monitored.Port() + " 2",
		"sentinel auth-pass " + Name + " " + monitored.Password,
		// Only Fail causes a fail-over, and nothing ends it early. Without Fail, Sentinels choose no replica that lost its
		// primary more than ten times down-after-milliseconds before they noticed.
		"sentinel down-after-milliseconds " + Name + " 3600000", "sentinel failover-timeout " + Name + " 60000",
	}
	path := s.write("sentinel.conf", []byte(strings.Join(lines, "\n")+"\n"))
	s.run("+monitor master "+Name, path, "--sentinel")
}

// URL returns REDIS_URL for the Sentinels.
func (s *Sentinels) URL() string {
	query := url.Values{"master_name": {Name}, "password": {s.Primary.Password}, "addr": {s.Sentinels[1].Addr, s.Sentinels[2].Addr}}
	return "redis://:" + s.Sentinels[0].Password + "@" + s.Sentinels[0].Addr + "/0?" + query.Encode()
}

// Fail kills the primary, if it was not killed before, and returns when the replica is the primary and all Sentinels say
// so.
func (s *Sentinels) Fail() {
	s.tb.Helper()
	s.Primary.Kill()
	for i, sentinel := range s.Sentinels {
		until(s.tb, "a Sentinel names the new primary", func() bool {
			if fmt.Sprint(sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", Name)) == "["+s.Replica.Host()+" "+s.Replica.Port()+"]" {
				return true
			}
			if i == 0 { // it refuses while it fails over, and while the replica does not answer it
				_, _ = try(&redis.Options{Addr: sentinel.Addr, Password: sentinel.Password}, "SENTINEL", "FAILOVER", Name)
			}
			return false
		})
	}
	until(s.tb, "the replica is the primary", func() bool {
		info, _ := s.Replica.Do("INFO", "replication").(string)
		return strings.Contains(info, "role:master")
	})
	s.Primary, s.Replica = s.Replica, s.Primary
}
