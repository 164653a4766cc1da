package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// resetdVariable says where TestMain has built resetd: the one that these files are for.
const resetdVariable = "MANIFESTS_TEST_RESETD"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "manifests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built := filepath.Join(dir, "resetd")
	command := exec.Command("go", "build", "-o", built, "./cmd/resetd")
	command.Dir = "../.."
	if output, err := command.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, output)
		return 1
	}
	if err := os.Setenv(resetdVariable, built); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// deployed is a copy of deploy/ and of the Dockerfile beside it.
func deployed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	deploy := filepath.Join(dir, "deploy")
	if err := os.CopyFS(deploy, os.DirFS("../../deploy")); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return deploy
}

func found(t *testing.T, deploy string) string {
	t.Helper()
	wrong, err := check(t.Context(), deploy, program{os.Getenv(resetdVariable)})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(wrong, "\n")
}

func TestAsTheyAre(t *testing.T) {
	if wrong := found(t, deployed(t)); wrong != "" {
		t.Error(wrong)
	}
}

// TestMistakes: each rule finds what it is for. A mistake replaces the first place where the old
// text is, which must be there.
func TestMistakes(t *testing.T) {
	const (
		compose       = "compose.yaml"
		instance      = "kubernetes/deployment.yaml"
		redis         = "kubernetes/redis.yaml"
		policy        = "kubernetes/networkpolicy.yaml"
		budget        = "kubernetes/poddisruptionbudget.yaml"
		service       = "kubernetes/service.yaml"
		plain         = "kubernetes/settings.env"
		example       = "kubernetes/secret.example.yaml"
		kustomization = "kubernetes/kustomization.yaml"
		monitor       = "kubernetes/prometheus-operator/podmonitor.yaml"
	)
	for _, test := range []struct{ file, old, new, want string }{
		// Members that there are not, or twice.
		{compose, "read_only:", "readonly:", "services.resetd.readonly"},
		{compose, "condition: service_healthy", "condition: healthy", "depends_on.redis"},
		{compose, "internal: true", "internal: yes please", "networks.back.internal"},
		{compose, "stop_grace_period: 30s", "stop_grace_period: 30s\n    stop_grace_period: 10s", "already defined"},
		{instance, "readOnlyRootFilesystem:", "readOnlyRootFilesytem:", `unknown field "spec.template.spec.containers[0].securityContext.readOnlyRootFilesytem"`},
		{instance, "replicas: 2", "replicas: two", "cannot unmarshal string"},
		{instance, "replicas: 2", "replicas: 2\n  replicas: 1", `key "replicas" already set in map`},
		{instance, "kind: Deployment", "kind: Deploymnt", `no kind "Deploymnt"`},
		{policy, "policyTypes:", "policyType:", `unknown field "spec.policyType"`},
		{budget, "unhealthyPodEvictionPolicy:", "unhealthyPodEviction:", `unknown field "spec.unhealthyPodEviction"`},
		{service, "targetPort:", "targetport:", `unknown field "spec.ports[0].targetport"`},
		{redis, "capabilities:", "capability:", `unknown field "spec.template.spec.containers[0].securityContext.capability"`},
		{example, "stringData:", "stringdata:", `unknown field "stringdata"`},
		{monitor, "podMetricsEndpoints:", "podMetricEndpoints:", `unknown field "spec.podMetricEndpoints"`},
		{kustomization, "configMapGenerator:", "configMapGenerators:", `unknown field "configMapGenerators"`},
		{kustomization, "  - networkpolicy.yaml\n", "", "*v1.NetworkPolicy resetd is in no kustomization"},

		// Settings.
		{compose, "SHUTDOWN_DELAY: 5s", "SHUTDOWN_DELEY: 5s", "SHUTDOWN_DELEY is no setting"},
		{compose, "SHUTDOWN_DELAY: 5s", "SHUTDOWN_DELAY: 5", "SHUTDOWN_DELAY: must be a duration"},
		{compose, "SITE_URL: https://app.example.com", "SITE_URL: app.example.com", "SITE_URL: "},
		{compose, "SITE_URL: https://app.example.com", "SITE_URL:", "SITE_URL would be taken from the caller's environment"},
		{compose, "REDIS_URL_FILE: /run/secrets/redis_url", "REDIS_URL: redis://:password@redis:6379/0", "REDIS_URL is a secret"},
		{compose, "MAILGUN_API_KEY_FILE: /run/secrets/mailgun_key", "MAILGUN_API_KEY_FILE: /run/secrets/mailgun", "which is no secret of resetd"},
		{plain, "SITE_URL=", "SITE=", "SITE is no setting"},
		{plain, "TRUSTED_PROXIES=10.244.0.0/16", "TRUSTED_PROXIES=10.244.0.0/36", "TRUSTED_PROXIES: "},
		{plain, "TRUSTED_PROXIES=", "# TRUSTED_PROXIES=", "TRUSTED_PROXIES is missing"},
		{plain, "SITE_URL=", "REDIS_URL=redis://redis\nSITE_URL=", "REDIS_URL is a secret"},
		{plain, "SHUTDOWN_TIMEOUT=20s", "SHUTDOWN_TIMEOUT=30s", "a stop is cut off after 30s"},
		{instance, "value: /run/secrets/resetd/redis_url", "value: /run/secrets/resetd/redis-url", "which is in no Secret"},

		// The container, one way and the other.
		{compose, "read_only: true", "read_only: false", "its file system can be written"},
		{compose, "- ALL", "- NET_RAW", "it has capabilities"},
		{compose, "no-new-privileges:true", "label:disable", "it may gain privileges"},
		{compose, `user: "65532:65532"`, `user: "0:0"`, `it runs as "0:0"`},
		{compose, `user: "65532:65532"`, `user: "1000:1000"`, "the user of resetd is"},
		{compose, "mem_limit: 256m", "", "have no limit"},
		{compose, "      test: [", "      disable: true\n      test: [", "there is no health check"},
		{compose, "restart: unless-stopped", `restart: "no"`, "it is not started again"},
		{compose, "stop_grace_period: 30s", "stop_grace_period: 20s", "a stop is cut off after 20s"},
		{compose, "stop_grace_period: 30s", "", "there is no stop_grace_period"},
		{compose, "        max-size: 10m\n", "", "its log grows without bound"},
		{compose, "condition: service_healthy", "condition: service_started", "does not wait for a healthy redis"},
		{compose, "127.0.0.1:8080:8080", "8080:8080", "published beyond this machine"},
		{compose, "127.0.0.1:8080:8080", "127.0.0.1:9090:9090", "resetd listens on 8080"},
		{compose, "internal: true", "internal: false", "which leads out"},
		{compose, "172.30.80.1/32", "172.30.80.0/24", "a proxy on this machine comes from"},
		{compose, "resetd:0.2.0", "resetd:latest", "is not of one version"},
		{compose, "resetd:0.2.0", "resetd:0.1.9", "the image of resetd is"},
		{compose, "VERSION: 0.2.0", "VERSION: 0.1.9", "the version that is built"},
		{compose, "alpine@sha256:b51665e66f00759be7c3152ad5ac3c66fb2f619c13ef62dea7cc1f9914524635", "alpine", "has no digest"},
		{compose, "noeviction", "allkeys-lru", "the command of redis is"},
		{compose, "    command:\n      - redis-server\n", "    ports: [\"6379:6379\"]\n    command:\n      - redis-server\n", "redis is published"},
		{"../Dockerfile", "USER 65532:65532", "USER 0", "the user of the image is"},
		{instance, "replicas: 2", "replicas: 1", "there is one instance"},
		{instance, "maxUnavailable: 0", "maxUnavailable: 1", "takes an instance away"},
		{instance, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "a token of the cluster"},
		{instance, "runAsNonRoot: true", "runAsNonRoot: false", "it may run as root"},
		{instance, "runAsUser: 65532", "runAsUser: 0", "it may run as root"},
		{instance, "type: RuntimeDefault", "type: Unconfined", "no seccomp profile"},
		{instance, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "it may gain privileges"},
		{instance, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "its file system can be written"},
		{instance, "- ALL", "- NET_RAW", "it has capabilities"},
		{instance, "memory: 256Mi", "ephemeral-storage: 1Mi", "memory has no request and limit"},
		{instance, "          livenessProbe:\n            httpGet:\n              path: /livez\n              port: admin\n            periodSeconds: 10\n            timeoutSeconds: 3\n            failureThreshold: 3\n", "", "a probe is missing"},
		{instance, "path: /readyz", "path: /livez", "the readiness probe does not ask /readyz"},
		{instance, "containerPort: 9090", "containerPort: 9091", "the port admin is not that of ADMIN_ADDR"},
		{instance, "containerPort: 8080", "containerPort: 8081", "the port http is not that of LISTEN_ADDR"},
		{instance, `value: ":9090"`, "value: 127.0.0.1:9090", "where no probe reaches it"},
		{instance, "kubernetes.io/hostname", "kubernetes.io/os", "nothing spreads the instances"},
		{instance, "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 25", "a stop is cut off after 25s"},
		{instance, "secretName: resetd", "secretName: reset", "has no Secret reset"},
		{instance, "defaultMode: 0440", "defaultMode: 0444", "not only its own user reads"},
		{instance, "configMapRef:\n                name: resetd-settings", "secretRef:\n                name: resetd", "a Secret is in the environment"},
		{instance, `prometheus.io/port: "9090"`, `prometheus.io/port: "8080"`, "do not lead to /metrics"},
		{redis, "/run/secrets/redis/redis_conf", "/etc/redis.conf", "redis is not started with its Secret"},
		{redis, "runAsUser: 999", "runAsUser: 1000", "the user of redis is"},
		{redis, "          startupProbe:\n            tcpSocket:\n              port: redis\n            periodSeconds: 1\n            failureThreshold: 30\n", "", "a probe is missing"},
		{budget, "maxUnavailable: 1", "maxUnavailable: 0", "does not allow exactly one instance to go"},
		{budget, "app.kubernetes.io/name: resetd", "app.kubernetes.io/name: redis", "no PodDisruptionBudget is for resetd"},
		{service, "targetPort: http", "targetPort: admin", "the operator's port is part of the Service"},
		{service, "targetPort: http", "targetPort: web", "which there is not"},
		{service, "  selector:\n    app.kubernetes.io/name: resetd", "  selector:\n    app.kubernetes.io/name: reset", "selects no pod of its own"},
		{monitor, "port: admin", "port: http", "does not ask for /metrics of the port admin"},
		{monitor, "jobLabel: app.kubernetes.io/name", "jobLabel: app", "the PodMonitor's job is not called resetd"},
		{kustomization, "newTag: 0.2.0", "newTag: latest", "is not of one version"},
		{kustomization, "namespace: resetd", "namespace: other", `is in the namespace "resetd"`},
		{kustomization, "  - redis.yaml\n", "  - redis.yaml\n  - secret.example.yaml\n", "a Secret is part of a kustomization"},
		{"kubernetes/namespace.yaml", "enforce: restricted", "enforce: baseline", "does not enforce the restricted"},
		{example, "supabase_key: REPLACE-ME", "supabase_key: eyJhbGciOi", "supabase_key of resetd is no placeholder"},

		// Who talks to whom.
		{policy, "  podSelector: {}\n", "  podSelector:\n    matchLabels: {app: other}\n", "no NetworkPolicy denies"},
		{policy, "kubernetes.io/metadata.name: monitoring", "kubernetes.io/metadata.name: ingress-nginx", "whoever sends requests reaches the operator's port"},
		{policy, "    - from:\n        - namespaceSelector:\n            matchLabels:\n              kubernetes.io/metadata.name: ingress-nginx\n      ports:", "    - ports:", "is for everybody or every port"},
		{policy, "        - namespaceSelector:\n            matchLabels:\n              kubernetes.io/metadata.name: ingress-nginx", "        - namespaceSelector: {}", "from any namespace or address"},
		{policy, "port: 9090", "port: 9091", "the NetworkPolicies let in"},
		{policy, "port: 443", "port: 80", "the NetworkPolicies let out"},
		{policy, "        - protocol: UDP\n          port: 53\n", "", "the NetworkPolicies let out"},
		{policy, "            except:\n              - 10.0.0.0/8\n              - 100.64.0.0/10\n              - 169.254.0.0/16\n              - 172.16.0.0/12\n              - 192.168.0.0/16\n", "", "reaches the cluster's own networks"},
		{redis, "        - podSelector:\n            matchLabels:\n              app.kubernetes.io/name: resetd", "        - podSelector: {}", "redis is reached by others than resetd"},
		{redis, "  policyTypes:\n    - Ingress\n    - Egress", "  policyTypes:\n    - Ingress", "not about both directions"},
	} {
		t.Run(fmt.Sprintf("%s %.40q", filepath.Base(test.file), test.new), func(t *testing.T) {
			t.Parallel()
			deploy := deployed(t)
			file := filepath.Join(deploy, test.file)
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(content), test.old) {
				t.Fatalf("%s has no %q", test.file, test.old)
			}
			if err := os.WriteFile(file, []byte(strings.Replace(string(content), test.old, test.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if wrong := found(t, deploy); !strings.Contains(wrong, test.want) {
				t.Errorf("found %q, want %q", wrong, test.want)
			}
		})
	}
}
