// Package manifests checks deploy/compose.yaml and deploy/kubernetes without a network, a cluster or a
// container runtime: by the types of Kubernetes and Compose, in which a member that they do not have is
// a mistake (a cluster would ignore a mistyped "readOnlyRootFilesytem" and run without it), by the pod
// security standard, by resetd itself, and by the names and versions that must agree.
package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const deploy = "../../deploy"

// objects are those of Kubernetes by "TYPE NAME".
type objects map[string]runtime.Object

// TestDeploy checks the files as they are, and with the lines about webhooks, which are there to be uncommented.
func TestDeploy(t *testing.T) {
	t.Parallel()
	for name, folder := range map[string]string{"as they are": deploy, "with webhooks": withWebhooks(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			applied := build(t, folder)
			checkApplied(t, folder)
			checkPorts(t, applied)
			checkServices(t, map[string]types.Services{"compose.yaml": compose(t, folder), "kubernetes": services(t, folder, applied)})
		})
	}
}

func withWebhooks(t *testing.T) (folder string) {
	folder = filepath.Join(t.TempDir(), "deploy")
	if err := os.CopyFS(folder, os.DirFS(deploy)); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^( *)# (.*(?:mailgun_webhook_key|MAILGUN_WEBHOOK_SIGNING_KEY_FILE).*)$`)
	for _, name := range []string{"compose.yaml", "kubernetes/deployment.yaml", "kubernetes/secret.example.yaml"} {
		content := read(t, filepath.Join(folder, name))
		if !line.Match(content) {
			t.Fatalf("%s says nothing of webhooks", name)
		}
		if err := os.WriteFile(filepath.Join(folder, name), line.ReplaceAll(content, []byte("$1$2")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// compose loads compose.yaml by Compose's own schema.
func compose(t *testing.T, folder string) types.Services {
	file := filepath.Join(folder, "compose.yaml")
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{WorkingDir: folder, ConfigFiles: []types.ConfigFile{{Filename: file}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range project.Services {
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.PidsLimit == 0 {
			t.Errorf("compose.yaml: %s can gain privileges, or start any number of processes", name)
		}
		for _, published := range s.Ports {
			if published.HostIP != "127.0.0.1" {
				t.Errorf("compose.yaml: the port %d of %s is published beyond this machine", published.Target, name)
			}
		}
	}
	// A proxy on this machine comes in by the gateway.
	for _, pool := range project.Networks["front"].Ipam.Config {
		if value := project.Services["resetd"].Environment["TRUSTED_PROXIES"]; value == nil || *value != pool.Gateway+"/32" {
			t.Errorf("compose.yaml: TRUSTED_PROXIES is not the gateway, %s", pool.Gateway)
		}
	}
	return project.Services
}

// decode reads a YAML stream into the types of Kubernetes.
func decode(t *testing.T, where string, content []byte) objects {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, monitoringv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	found := objects{}
	for reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return found
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		found[fmt.Sprintf("%T %s", object, object.(metav1.Object).GetName())] = object
	}
}

// build returns what a cluster is given.
func build(t *testing.T, folder string) objects {
	applied := objects{}
	for _, part := range []string{"kubernetes", "kubernetes/prometheus-operator"} {
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(folder, part))
		if err != nil {
			t.Fatal(err)
		}
		content, err := resources.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(applied, decode(t, part, content))
	}
	return applied
}

// checkApplied: every file is applied, except for the examples of Secrets.
func checkApplied(t *testing.T, folder string) {
	for _, part := range []string{"kubernetes", "kubernetes/prometheus-operator"} {
		files, err := filepath.Glob(filepath.Join(folder, part, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		kustomization := string(read(t, filepath.Join(folder, part, "kustomization.yaml")))
		for _, file := range files {
			name := filepath.Base(file)
			if applied := strings.Contains(kustomization, "- "+name+"\n"); name != "kustomization.yaml" && applied == (name == "secret.example.yaml") {
				t.Errorf("%s is applied: %v", file, applied)
			}
		}
	}
}

// services returns the containers of a cluster, as Compose would describe them. The restricted pod
// security standard allows each.
func services(t *testing.T, folder string, applied objects) types.Services {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	examples := filepath.Join(folder, "kubernetes/secret.example.yaml")
	secrets, found := decode(t, examples, read(t, examples)), types.Services{}
	for name, object := range applied {
		d, ok := object.(*appsv1.Deployment)
		if !ok {
			continue
		}
		pod, c := d.Spec.Template.Spec, d.Spec.Template.Spec.Containers[0]
		restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
		if result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &d.Spec.Template.ObjectMeta, &pod)); !result.Allowed {
			t.Errorf("%s: %s", name, result.ForbiddenDetail())
		}
		if ptr.Deref(pod.AutomountServiceAccountToken, true) {
			t.Errorf("%s is given a token of the cluster", name)
		}
		grace := types.Duration(ptr.Deref(pod.TerminationGracePeriodSeconds, 30)) * types.Duration(time.Second)
		var s types.ServiceConfig
		s.Image, s.User = c.Image, fmt.Sprintf("%d:%d", ptr.Deref(pod.SecurityContext.RunAsUser, 0), ptr.Deref(pod.SecurityContext.RunAsGroup, 0))
		s.Command, s.Environment, s.StopGracePeriod = slices.Concat(c.Command, c.Args), types.MappingWithEquals{}, &grace
		s.MemLimit, s.CPUS = types.UnitBytes(c.Resources.Limits.Memory().Value()), float32(c.Resources.Limits.Cpu().AsApproximateFloat64())
		s.ReadOnly = ptr.Deref(c.SecurityContext.ReadOnlyRootFilesystem, false)
		for _, from := range c.EnvFrom {
			settings, ok := applied["*v1.ConfigMap "+from.ConfigMapRef.Name].(*corev1.ConfigMap)
			if !ok {
				t.Fatalf("%s: there is no ConfigMap %s", name, from.ConfigMapRef.Name)
			}
			for variable, value := range settings.Data {
				s.Environment[variable] = &value
			}
		}
		for _, variable := range c.Env {
			s.Environment[variable.Name] = &variable.Value
		}
		for _, volume := range pod.Volumes {
			for _, mount := range c.VolumeMounts {
				if volume.Name != mount.Name || volume.Secret == nil {
					continue
				}
				example, ok := secrets["*v1.Secret "+volume.Secret.SecretName].(*corev1.Secret)
				if !ok || ptr.Deref(volume.Secret.DefaultMode, 0o644) != 0o440 {
					t.Fatalf("%s: the Secret %s has no example, or can be read by all", name, volume.Secret.SecretName)
				}
				for key, text := range example.StringData {
					s.Secrets = append(s.Secrets, types.ServiceSecretConfig{Target: path.Join(mount.MountPath, key)})
					if !strings.Contains(text, "REPLACE-ME") {
						t.Errorf("%s: %s is no placeholder", examples, key)
					}
				}
			}
		}
		found[d.Name] = s
	}
	return found
}

// checkServices: all ways to run resetd start the same programs, of this version, as the image's user, and
// with settings that it knows and takes.
func checkServices(t *testing.T, ways map[string]types.Services) {
	version := strings.Fields(resetd(t, nil, "version"))[1]
	settings := regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+)`).FindAllStringSubmatch(resetd(t, nil, "serve", "--help"), -1)
	user := regexp.MustCompile(`(?m)^USER (.+)$`).FindSubmatch(read(t, "../../Dockerfile"))
	model := ways["compose.yaml"]["redis"]
	for where, way := range ways {
		server, redis := way["resetd"], way["redis"]
		if name, _, _ := strings.Cut(server.Image, "@"); !strings.HasSuffix(name, ":"+version) || server.User != string(user[1]) {
			t.Errorf("%s: resetd is %s as %s, this is version %s as %s", where, server.Image, server.User, version, user[1])
		}
		if !regexp.MustCompile(`:[^:@]*\d+\.\d+\.\d+[^:@]*@sha256:[0-9a-f]{64}$`).MatchString(redis.Image) {
			t.Errorf("%s: the image %s is not of one version and digest", where, redis.Image)
		}
		started, want := slices.Concat(redis.Entrypoint, redis.Command), slices.Concat(model.Entrypoint, model.Command)
		if redis.Image != model.Image || redis.User != model.User || !slices.EqualFunc(started, want, sameWord) || !slices.ContainsFunc(started, hasSecret(redis)) {
			t.Errorf("%s: redis is %s as %s, %q", where, redis.Image, redis.User, started)
		}
		for name, s := range way {
			if !s.ReadOnly || s.MemLimit == 0 || s.CPUS == 0 {
				t.Errorf("%s: %s can write files, or has no limits", where, name)
			}
		}
		environment := server.Environment.ToMapping()
		if len(environment) != len(server.Environment) {
			t.Errorf("%s: a variable would be taken from the caller's environment", where)
		}
		var plain []string // nobody can read files here
		for name, value := range environment {
			setting, isFile := strings.CutSuffix(name, "_FILE")
			if name != "GOMEMLIMIT" && !slices.ContainsFunc(settings, func(found []string) bool { return found[1] == setting }) {
				t.Errorf("%s: %s is no setting", where, name)
			}
			switch {
			case isFile && !hasSecret(server)(value):
				t.Errorf("%s: %s is %s, which is no secret", where, name, value)
			case !isFile && (strings.Contains(name, "KEY") || name == "REDIS_URL"):
				t.Errorf("%s: %s is a secret: give %s_FILE", where, name, name)
			case !isFile:
				plain = append(plain, name+"="+value)
			}
		}
		values := slices.Collect(maps.Values(environment))
		if slices.ContainsFunc(server.Secrets, func(s types.ServiceSecretConfig) bool { return !slices.Contains(values, s.Target) }) {
			t.Errorf("%s: no setting names one of the secrets", where)
		}
		// Wrong settings are status 2. These are right, and nothing answers there: status 1.
		if said := resetd(t, append(plain, "LISTEN_ADDR=127.0.0.1:1"), "healthcheck"); !strings.HasSuffix(said, "\nexit status 1\n") {
			t.Errorf("%s: %s", where, said)
		}
		// A stop takes SHUTDOWN_DELAY and SHUTDOWN_TIMEOUT, and may take five seconds more.
		delay, _ := time.ParseDuration(environment["SHUTDOWN_DELAY"])
		timeout, _ := time.ParseDuration(environment["SHUTDOWN_TIMEOUT"])
		if need := delay + timeout + 5*time.Second; delay == 0 || timeout == 0 || time.Duration(ptr.Deref(server.StopGracePeriod, 0)) < need {
			t.Errorf("%s: a stop is cut off after %v, and may take %v", where, server.StopGracePeriod, need)
		}
		// A fifth is for what Go's runtime does not count: the program itself, and what the kernel holds.
		limit, err := resource.ParseQuantity(strings.TrimSuffix(environment["GOMEMLIMIT"], "B"))
		if err != nil || limit.Value() > int64(server.MemLimit)/5*4 {
			t.Errorf("%s: GOMEMLIMIT is %s of %d bytes, %v", where, environment["GOMEMLIMIT"], server.MemLimit, err)
		}
	}
}

// sameWord says whether two words of commands differ at most in the folder where a secret is.
func sameWord(a, b string) bool {
	return a == b || path.IsAbs(a) && path.IsAbs(b) && path.Base(a) == path.Base(b)
}

// hasSecret says whether a path is that of a secret of a service.
func hasSecret(s types.ServiceConfig) func(path string) bool {
	return func(path string) bool {
		return slices.ContainsFunc(s.Secrets, func(secret types.ServiceSecretConfig) bool { return secret.Target == path })
	}
}

// checkPorts: what selects pods selects some, and the ports that it names are theirs. Connections that no
// NetworkPolicy allows are denied.
func checkPorts(t *testing.T, applied objects) {
	check := func(what string, s *metav1.LabelSelector, ports ...intstr.IntOrString) {
		t.Helper()
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		theirs := map[string]bool{}
		for _, object := range applied {
			if d, ok := object.(*appsv1.Deployment); ok && !selector.Empty() && selector.Matches(labels.Set(d.Spec.Template.Labels)) {
				for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
					theirs[p.Name], theirs[fmt.Sprint(p.ContainerPort)] = true, true
				}
			}
		}
		if len(theirs) == 0 {
			t.Errorf("%s selects no pod", what)
		}
		for _, port := range ports {
			if !theirs[port.String()] {
				t.Errorf("%s names the port %s, which its pods do not have", what, port.String())
			}
		}
	}
	denied := false
	for name, object := range applied {
		switch o := object.(type) {
		case *appsv1.Deployment:
			c := o.Spec.Template.Spec.Containers[0]
			for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
				switch {
				case probe.HTTPGet != nil:
					check(name, o.Spec.Selector, probe.HTTPGet.Port)
				case probe.TCPSocket != nil:
					check(name, o.Spec.Selector, probe.TCPSocket.Port)
				}
			}
			if port, there := o.Spec.Template.Annotations["prometheus.io/port"]; there {
				check(name, o.Spec.Selector, intstr.Parse(port))
			}
			for _, spread := range o.Spec.Template.Spec.TopologySpreadConstraints {
				check(name, spread.LabelSelector)
			}
		case *corev1.Service:
			for _, p := range o.Spec.Ports {
				check(name, &metav1.LabelSelector{MatchLabels: o.Spec.Selector}, p.TargetPort)
				if p.TargetPort.String() == "admin" || p.TargetPort.String() == "9090" {
					t.Errorf("%s leads to the operator's port", name)
				}
			}
		case *policyv1.PodDisruptionBudget:
			check(name, o.Spec.Selector)
		case *monitoringv1.PodMonitor:
			for _, endpoint := range o.Spec.PodMetricsEndpoints {
				check(name, &o.Spec.Selector, intstr.FromString(ptr.Deref(endpoint.Port, "")))
			}
		case *networkingv1.NetworkPolicy:
			open := len(o.Spec.PolicyTypes) != 2
			if len(o.Spec.PodSelector.MatchLabels) == 0 {
				denied = !open && len(o.Spec.Ingress)+len(o.Spec.Egress) == 0
				continue
			}
			for _, rule := range o.Spec.Ingress {
				open = open || len(rule.From) == 0 || len(rule.Ports) == 0
				check(name, &o.Spec.PodSelector, portsOf(rule.Ports)...)
			}
			for _, rule := range o.Spec.Egress {
				open = open || len(rule.To) == 0 || len(rule.Ports) == 0
				for _, peer := range rule.To {
					if peer.NamespaceSelector == nil && peer.PodSelector != nil {
						check(name, peer.PodSelector, portsOf(rule.Ports)...)
					}
				}
			}
			if open {
				t.Errorf("%s allows a direction, a port or a peer that it does not name", name)
			}
		}
	}
	if !denied {
		t.Error("no NetworkPolicy denies what others do not allow")
	}
}

func portsOf(allowed []networkingv1.NetworkPolicyPort) (ports []intstr.IntOrString) {
	for _, p := range allowed {
		ports = append(ports, ptr.Deref(p.Port, intstr.IntOrString{}))
	}
	return ports
}

// TestPrometheusRule: the command in deploy/README.md makes one of all alerts.
func TestPrometheusRule(t *testing.T) {
	t.Parallel()
	script := regexp.MustCompile("(?s)```sh\n([^`]*PrometheusRule[^`]*)```").FindSubmatch(read(t, "../../deploy/README.md"))
	if script == nil {
		t.Fatal("there is no command")
	}
	command := exec.Command("bash", "-euc", "kubectl() { cat; }\n"+string(script[1]))
	command.Dir = deploy
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	rule, ok := decode(t, "the command", output)["*v1.PrometheusRule resetd"].(*monitoringv1.PrometheusRule)
	alerts := bytes.Count(read(t, "../../deploy/prometheus/alerts.yaml"), []byte("alert:"))
	if !ok || rule.Namespace != "resetd" || alerts == 0 || bytes.Count(output, []byte("alert:")) != alerts {
		t.Fatalf("it makes %s", output)
	}
}

// resetd runs the program that the files are for, and returns what it says.
func resetd(t *testing.T, settings []string, args ...string) string {
	t.Helper()
	command := exec.Command("go", append([]string{"run", "./cmd/resetd"}, args...)...)
	command.Dir, command.Env = "../..", append(os.Environ(), settings...)
	said, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(said)
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
