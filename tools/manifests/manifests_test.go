package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
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

// What updates change, so that they need no change here.
var placeholders = strings.NewReplacer("<VERSION>", `[0-9]+\.[0-9]+\.[0-9]+`, "<DIGEST>", `sha256:[0-9a-f]{64}`)

// mutate replaces the first place where the old text is, which must be there.
func mutate(t *testing.T, deploy, name, old, by string) {
	t.Helper()
	file := filepath.Join(deploy, name)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	place := regexp.MustCompile(placeholders.Replace(regexp.QuoteMeta(old))).FindIndex(content)
	if place == nil {
		t.Fatalf("%s has no %q", name, old)
	}
	mutated := slices.Concat(content[:place[0]], []byte(by), content[place[1]:])
	if err := os.WriteFile(file, mutated, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMistakes: each rule finds what it is for. In the old text <VERSION> and <DIGEST> stand for
// any.
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
		{compose, "mem_limit: 256m", "mem_limit: 249m", "compose.yaml: GOMEMLIMIT is 209715200 bytes"},
		{compose, "GOMEMLIMIT: 200MiB", "GOMEMLIMIT: 200MB", `compose.yaml: GOMEMLIMIT is "200MB", want some MiB`},
		{compose, "GOMEMLIMIT: 200MiB", "GOMEMLIMIT: 0MiB", "compose.yaml: GOMEMLIMIT is 0 bytes"},
		{compose, "GOMEMLIMIT: 200MiB", "GOGC: \"50\"", "GOGC is no setting"},
		{plain, "GOMEMLIMIT=200MiB", "GOMEMLIMIT=206MiB", "kubernetes: GOMEMLIMIT is 216006656 bytes"},
		{plain, "GOMEMLIMIT=200MiB\n", "", `kubernetes: GOMEMLIMIT is "", want some MiB`},
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
		{compose, "resetd:<VERSION>", "resetd:latest", "is not of one version"},
		{compose, "resetd:<VERSION>", "resetd:0.1.9", "the image of resetd is"},
		{compose, "resetd:<VERSION>", "resetd:0.1.9", "compose.yaml: the image of resetd is \"ghcr.io/resetd/resetd:0.1.9\", and this is version"},
		{compose, "VERSION: <VERSION>", "VERSION: 0.1.9", "the version that is built"},
		{compose, "alpine@<DIGEST>", "alpine", "has no digest"},
		{compose, "redis:<VERSION>", "redis:7.0.0", "the image of redis is"},
		{compose, `test: ["CMD", "/resetd", "healthcheck"]`, `test: ["CMD", "wget", "http://127.0.0.1:8080/healthz"]`, "the health check is not the program's own"},
		{compose, "- --appendonly\n      - \"yes\"", "- --appendonly\n      - \"no\"", "the command of redis is"},
		{compose, "- redis:/data", "- /var/lib/redis:/data", "redis: it shares something of the machine"},
		{redis, "sizeLimit: 512Mi", "medium: Memory", "the volume data is neither a Secret nor bounded"},
		{compose, "noeviction", "allkeys-lru", "compose.yaml: redis forgets limits"},
		{compose, "    entrypoint: [\"redis-server\"]\n", "", "compose.yaml: redis is started by the image's entrypoint"},
		{compose, "    command:\n      - /run/secrets/redis_conf\n", "    command:\n      - redis-server\n      - /run/secrets/redis_conf\n", "the command of redis is"},
		{compose, "mem_limit: 128m", "mem_limit: 96m", "compose.yaml: maxmemory of redis is"},
		{compose, "96mb", "96m", "the command of redis is"},
		{compose, "96mb", "96mib", `compose.yaml: --maxmemory of redis: "96mib" is no size`},
		{compose, "96mb", "0mb", "compose.yaml: maxmemory of redis is 0 bytes"},
		{compose, "96mb", "97mb", "compose.yaml: maxmemory of redis is 101711872 bytes"},
		{compose, "    entrypoint: [\"redis-server\"]\n", "    ports: [\"6379:6379\"]\n    entrypoint: [\"redis-server\"]\n", "redis is published"},
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
		{redis, "          command:\n            - redis-server", "          args:\n            - redis-server", "kubernetes: redis is started by the image's entrypoint"},
		{redis, "noeviction", "allkeys-lru", "kubernetes: redis forgets limits"},
		{redis, "memory: 128Mi", "memory: 96Mi", "kubernetes: maxmemory of redis is"},
		{redis, "fsGroup: 1000", "fsGroup: 999", "is not given to its user's group"},
		{instance, "fsGroup: 65532", "fsGroup: 65533", "is not given to its user's group"},
		{redis, "runAsUser: 999", "runAsUser: 1000", "the user of redis is"},
		{redis, "          startupProbe:\n            tcpSocket:\n              port: redis\n            periodSeconds: 1\n            failureThreshold: 30\n", "", "a probe is missing"},
		{budget, "maxUnavailable: 1", "maxUnavailable: 0", "does not allow exactly one instance to go"},
		{budget, "app.kubernetes.io/name: resetd", "app.kubernetes.io/name: redis", "no PodDisruptionBudget is for resetd"},
		{budget, "unhealthyPodEvictionPolicy: AlwaysAllow", "unhealthyPodEvictionPolicy: IfHealthyBudget", "stands in the way of a drain"},
		{service, "port: 80", "port: 8080", "the port of the Service resetd is not 80"},
		{service, "targetPort: http", "targetPort: admin", "the operator's port is part of the Service"},
		{service, "targetPort: http", "targetPort: web", "which there is not"},
		{service, "  selector:\n    app.kubernetes.io/name: resetd", "  selector:\n    app.kubernetes.io/name: reset", "selects no pod of its own"},
		{monitor, "port: admin", "port: http", "does not ask for /metrics of the port admin"},
		{monitor, "jobLabel: app.kubernetes.io/name", "jobLabel: app", "the PodMonitor's job is not called resetd"},
		{kustomization, "newTag: <VERSION>", "newTag: latest", "is not of one version"},
		{kustomization, "newTag: <VERSION>", "newTag: 0.1.9", "kustomization.yaml: the image of resetd is \"ghcr.io/resetd/resetd:0.1.9\", and this is version"},
		{kustomization, "namespace: resetd", "namespace: other", `is in the namespace "resetd"`},
		{kustomization, "  - redis.yaml\n", "  - redis.yaml\n  - secret.example.yaml\n", "a Secret is part of a kustomization"},
		{"kubernetes/namespace.yaml", "enforce: restricted", "enforce: baseline", "does not enforce the restricted"},
		{example, "supabase_key: REPLACE-ME", "supabase_key: eyJhbGciOi", "supabase_key of resetd is no placeholder"},

		// Who talks to whom.
		{policy, "  podSelector: {}\n", "  podSelector:\n    matchLabels: {app: other}\n", "no NetworkPolicy denies"},
		{policy, "kubernetes.io/metadata.name: monitoring", "kubernetes.io/metadata.name: ingress-nginx", "those who send requests reach the operator's port"},
		{policy, "    - from:\n        - namespaceSelector:\n            matchLabels:\n              kubernetes.io/metadata.name: ingress-nginx\n      ports:", "    - ports:", "is for everybody or every port"},
		{policy, "        - namespaceSelector:\n            matchLabels:\n              kubernetes.io/metadata.name: ingress-nginx", "        - namespaceSelector: {}", "from any namespace or address"},
		{policy, "port: 9090", "port: 9091", "the NetworkPolicies let in"},
		{policy, "port: 443", "port: 80", "the NetworkPolicies let out"},
		{policy, "        - protocol: UDP\n          port: 53\n", "", "the NetworkPolicies let out"},
		{policy, "            except:\n              - 10.0.0.0/8\n              - 100.64.0.0/10\n              - 169.254.0.0/16\n              - 172.16.0.0/12\n              - 192.168.0.0/16\n", "", "by port 443 resetd reaches"},
		{policy, "              - 169.254.0.0/16\n", "", "by port 443 resetd reaches"},
		{policy, "              - fe80::/10\n", "", "by port 443 resetd reaches"},
		{policy, "172.16.0.0/12", "172.16.0.0/16", "by port 443 resetd reaches"},
		{policy, "cidr: 0.0.0.0/0", "cidr: 8.0.0.0/8", "by port 443 resetd reaches"},
		{policy, "        - ipBlock:\n            cidr: 0.0.0.0/0", "        - namespaceSelector: {}\n        - ipBlock:\n            cidr: 0.0.0.0/0", "resetd reaches pods by port 443"},
		{policy, "k8s-app: kube-dns", "k8s-app: dns", "resetd reaches others than the cluster's DNS"},
		{policy, "          podSelector:\n            matchLabels:\n              k8s-app: kube-dns\n", "", "resetd reaches others than the cluster's DNS"},
		{policy, "              kubernetes.io/metadata.name: kube-system", "              kubernetes.io/metadata.name: default", "resetd reaches others than the cluster's DNS"},
		{policy, "      ports:\n        - protocol: UDP\n", "        - podSelector: {}\n      ports:\n        - protocol: UDP\n", "resetd reaches others than the cluster's DNS"},
		{redis, "        - podSelector:\n            matchLabels:\n              app.kubernetes.io/name: resetd", "        - podSelector: {}", "redis is reached by others than resetd"},
		{redis, "  policyTypes:\n    - Ingress\n    - Egress", "  policyTypes:\n    - Ingress", "not about both directions"},
	} {
		t.Run(fmt.Sprintf("%s %.40q", filepath.Base(test.file), test.new), func(t *testing.T) {
			t.Parallel()
			deploy := deployed(t)
			mutate(t, deploy, test.file, test.old, test.new)
			if wrong := found(t, deploy); !strings.Contains(wrong, test.want) {
				t.Errorf("found %q, want %q", wrong, test.want)
			}
		})
	}
}

// TestWebhooks: the lines that are there to be uncommented hold once they are, and only together.
func TestWebhooks(t *testing.T) {
	uncomment := func(t *testing.T, deploy, name string, want int) {
		file := filepath.Join(deploy, name)
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		line := regexp.MustCompile(`(?m)^( *)# (.*(?:mailgun_webhook_key|MAILGUN_WEBHOOK_SIGNING_KEY_FILE).*)$`)
		if got := len(line.FindAll(content, -1)); got != want {
			t.Fatalf("%s has %d lines about the webhooks, want %d", name, got, want)
		}
		if err := os.WriteFile(file, line.ReplaceAll(content, []byte("$1$2")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	deploy := deployed(t)
	uncomment(t, deploy, "compose.yaml", 4)
	uncomment(t, deploy, "kubernetes/deployment.yaml", 2)
	if wrong := found(t, deploy); !strings.Contains(wrong, "kubernetes: MAILGUN_WEBHOOK_SIGNING_KEY_FILE is /run/secrets/resetd/mailgun_webhook_key, which is in no Secret") {
		t.Errorf("without the key in the Secret: %q", wrong)
	}
	uncomment(t, deploy, "kubernetes/secret.example.yaml", 1)
	if wrong := found(t, deploy); wrong != "" {
		t.Error(wrong)
	}
}

// TestPrometheusRule: the command in deploy/README.md makes one of all alerts.
func TestPrometheusRule(t *testing.T) {
	page, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```sh\n([^`]*PrometheusRule[^`]*)```").FindSubmatch(page)
	if script == nil {
		t.Fatal("there is no command")
	}
	command := exec.Command("bash", "-euc", "kubectl() { cat; }\n"+string(script[1]))
	command.Dir = "../../deploy"
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	object, _, err := decoder.Decode(output, nil, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	made, ok := object.(*monitoringv1.PrometheusRule)
	if !ok || made.Namespace != "resetd" {
		t.Fatalf("it makes %T in %s", object, made.Namespace)
	}
	content, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(content, &want); err != nil {
		t.Fatal(err)
	}
	if len(want.Groups) == 0 || !reflect.DeepEqual(made.Spec, want) {
		t.Errorf("it makes %+v of %+v", made.Spec, want)
	}
}
