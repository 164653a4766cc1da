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
	"reflect"
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
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const deploy = "../../deploy"

// resetd is the program that the files are for.
var resetd string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "manifests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	resetd = filepath.Join(dir, "resetd")
	command := exec.Command("go", "build", "-o", resetd, "./cmd/resetd")
	command.Dir = "../.."
	if output, err := command.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, output)
		return 1
	}
	return m.Run()
}

// container is what a way to run resetd says of one of its two containers.
type container struct {
	image, user string
	environment map[string]string
	command     []string
	memory      int64 // the limit, in bytes
	grace       time.Duration
	files       []string // secrets, by their paths
}

// TestAgree: both ways to run resetd start the same programs, of this version, as the image's user, and
// with settings that it knows and takes.
func TestAgree(t *testing.T) {
	t.Parallel()
	agree(t, deploy)
}

// TestAgreeUncommented: so they do with the lines about webhooks, which are there to be uncommented.
func TestAgreeUncommented(t *testing.T) {
	t.Parallel()
	copied := filepath.Join(t.TempDir(), "deploy")
	if err := os.CopyFS(copied, os.DirFS(deploy)); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^( *)# (.*(?:mailgun_webhook_key|MAILGUN_WEBHOOK_SIGNING_KEY_FILE).*)$`)
	for _, name := range []string{"compose.yaml", "kubernetes/deployment.yaml", "kubernetes/secret.example.yaml"} {
		file := filepath.Join(copied, name)
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !line.Match(content) {
			t.Fatalf("%s says nothing of webhooks", name)
		}
		if err := os.WriteFile(file, line.ReplaceAll(content, []byte("$1$2")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	agree(t, copied)
}

func agree(t *testing.T, deploy string) {
	t.Helper()
	version, _, _ := strings.Cut(strings.TrimPrefix(output(t, "version"), "resetd "), " ")
	known := map[string]bool{"GOMEMLIMIT": true}
	for _, line := range regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+)`).FindAllStringSubmatch(output(t, "serve", "--help"), -1) {
		known[line[1]], known[line[1]+"_FILE"] = true, true
	}
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	image := regexp.MustCompile(`(?m)^USER (.+)$`).FindSubmatch(dockerfile)

	composed, clustered := compose(t, deploy), kubernetes(t, deploy)
	for where, both := range map[string]map[string]container{"compose.yaml": composed, "kubernetes": clustered} {
		server, redis := both["resetd"], both["redis"]
		if name, _, _ := strings.Cut(server.image, "@"); !strings.HasSuffix(name, ":"+version) {
			t.Errorf("%s: the image is %s, and this is version %s", where, server.image, version)
		}
		if server.user != string(image[1]) {
			t.Errorf("%s: resetd runs as %s, and the image as %s", where, server.user, image[1])
		}
		if !regexp.MustCompile(`:[^:@]*\d+\.\d+\.\d+[^:@]*@sha256:[0-9a-f]{64}$`).MatchString(redis.image) {
			t.Errorf("%s: the image %s is not of one version and digest", where, redis.image)
		}
		if redis.image != composed["redis"].image || redis.user != composed["redis"].user || !slices.EqualFunc(redis.command, composed["redis"].command, sameWord) {
			t.Errorf("%s: redis is %s as %s, %q", where, redis.image, redis.user, redis.command)
		}
		var plain []string // what is in files is not there to read
		for name, value := range server.environment {
			if !known[name] {
				t.Errorf("%s: %s is no setting", where, name)
			}
			if strings.HasSuffix(name, "_FILE") {
				if !slices.Contains(server.files, value) {
					t.Errorf("%s: %s is %s, which is no secret", where, name, value)
				}
				continue
			}
			if strings.Contains(name, "KEY") || name == "REDIS_URL" {
				t.Errorf("%s: %s is a secret: give %s_FILE", where, name, name)
			}
			plain = append(plain, name+"="+value)
		}
		if len(server.files) == 0 || !slices.ContainsFunc(redis.command, func(word string) bool { return slices.Contains(redis.files, word) }) {
			t.Errorf("%s: a secret is not read", where)
		}
		// Wrong settings are status 2. These are right, and nothing answers there: status 1.
		command := exec.Command(resetd, "healthcheck")
		command.Env = append(plain, "LISTEN_ADDR=127.0.0.1:1")
		var exit *exec.ExitError
		if said, err := command.CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s: %v: %s", where, err, said)
		}
		// A stop takes SHUTDOWN_DELAY and SHUTDOWN_TIMEOUT, and may take five seconds more.
		need := 5 * time.Second
		for _, name := range []string{"SHUTDOWN_DELAY", "SHUTDOWN_TIMEOUT"} {
			d, err := time.ParseDuration(server.environment[name])
			if err != nil {
				t.Errorf("%s: %s: %v", where, name, err)
			}
			need += d
		}
		if server.grace < need {
			t.Errorf("%s: a stop is cut off after %v, and may take %v", where, server.grace, need)
		}
		// A fifth is for what Go's runtime does not count: the program itself, and what the kernel holds.
		limit, err := resource.ParseQuantity(strings.TrimSuffix(server.environment["GOMEMLIMIT"], "B"))
		if err != nil || limit.Value() > server.memory/5*4 {
			t.Errorf("%s: GOMEMLIMIT is %s of %d bytes, %v", where, server.environment["GOMEMLIMIT"], server.memory, err)
		}
	}
}

// sameWord says whether two words of commands differ at most in the folder where a secret is.
func sameWord(a, b string) bool {
	return a == b || path.IsAbs(a) && path.IsAbs(b) && path.Base(a) == path.Base(b)
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	said, err := exec.Command(resetd, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return string(said)
}

// compose loads deploy/compose.yaml by Compose's own schema.
func compose(t *testing.T, deploy string) map[string]container {
	t.Helper()
	folder, err := filepath.Abs(deploy)
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: folder, ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(folder, "compose.yaml")}}, Environment: types.Mapping{},
	}, func(o *loader.Options) { o.SetProjectName("resetd", false) })
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]container{}
	for name, s := range project.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.PidsLimit == 0 {
			t.Errorf("compose.yaml: %s can write files, gain privileges, or start any number of processes", name)
		}
		for _, published := range s.Ports {
			if published.HostIP != "127.0.0.1" {
				t.Errorf("compose.yaml: the port %d of %s is published beyond this machine", published.Target, name)
			}
		}
		c := container{image: s.Image, user: s.User, command: slices.Concat(s.Entrypoint, s.Command), memory: int64(s.MemLimit), environment: map[string]string{}}
		for variable, value := range s.Environment {
			if value == nil {
				t.Fatalf("compose.yaml: %s of %s would be taken from the caller's environment", variable, name)
			}
			c.environment[variable] = *value
		}
		if s.StopGracePeriod != nil {
			c.grace = time.Duration(*s.StopGracePeriod)
		}
		for _, secret := range s.Secrets {
			c.files = append(c.files, "/run/secrets/"+secret.Source)
		}
		found[name] = c
	}
	// A proxy on this machine comes in by the gateway.
	for _, pool := range project.Networks["front"].Ipam.Config {
		if found["resetd"].environment["TRUSTED_PROXIES"] != pool.Gateway+"/32" {
			t.Errorf("compose.yaml: TRUSTED_PROXIES is not the gateway, %s", pool.Gateway)
		}
	}
	return found
}

// decode reads a YAML stream into the types of Kubernetes.
func decode(t *testing.T, where string, content []byte) (objects []runtime.Object) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, monitoringv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		objects = append(objects, object)
	}
}

// source decodes the files themselves: kustomize drops members that it does not know.
func source(t *testing.T, deploy string) map[string]runtime.Object {
	t.Helper()
	found := map[string]runtime.Object{}
	for _, pattern := range []string{"*.yaml", "prometheus-operator/*.yaml"} {
		files, err := filepath.Glob(filepath.Join(deploy, "kubernetes", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Base(file) != "kustomization.yaml" {
				for _, object := range decode(t, file, content) {
					found[nameOf(object)] = object
				}
			}
		}
	}
	return found
}

// build returns what a cluster would be given.
func build(t *testing.T, deploy string) map[string]runtime.Object {
	t.Helper()
	found := map[string]runtime.Object{}
	for _, folder := range []string{"kubernetes", "kubernetes/prometheus-operator"} {
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(deploy, folder))
		if err != nil {
			t.Fatal(err)
		}
		content, err := resources.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range decode(t, folder, content) {
			found[nameOf(object)] = object
		}
	}
	return found
}

func nameOf(object runtime.Object) string {
	return fmt.Sprintf("%T %s", object, object.(metav1.Object).GetName())
}

// TestBuilt: all files but the examples of Secrets are part of what is applied.
func TestBuilt(t *testing.T) {
	t.Parallel()
	built := build(t, deploy)
	for name, object := range source(t, deploy) {
		secret, isSecret := object.(*corev1.Secret)
		if _, there := built[name]; there == isSecret {
			t.Errorf("%s: applied is %v", name, there)
		}
		if isSecret {
			for key, text := range secret.StringData {
				if !strings.Contains(text, "REPLACE-ME") {
					t.Errorf("%s: %s is no placeholder", name, key)
				}
			}
		}
	}
}

// kubernetes returns the containers, each of which the restricted pod security standard allows.
func kubernetes(t *testing.T, deploy string) map[string]container {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	examples, built := source(t, deploy), build(t, deploy)
	found := map[string]container{}
	for _, object := range built {
		d, ok := object.(*appsv1.Deployment)
		if !ok {
			continue
		}
		pod, c := d.Spec.Template.Spec, d.Spec.Template.Spec.Containers[0]
		for _, check := range evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &d.Spec.Template.ObjectMeta, &pod) {
			if !check.Allowed {
				t.Errorf("kubernetes: %s: %s: %s", d.Name, check.ForbiddenReason, check.ForbiddenDetail)
			}
		}
		// What the standard says nothing about.
		if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || *pod.AutomountServiceAccountToken || len(c.Resources.Limits) < 2 {
			t.Errorf("kubernetes: %s can write files, is given a token of the cluster, or has no limits", d.Name)
		}
		is := container{
			image: c.Image, user: fmt.Sprintf("%d:%d", *pod.SecurityContext.RunAsUser, *pod.SecurityContext.RunAsGroup),
			command: slices.Concat(c.Command, c.Args), memory: c.Resources.Limits.Memory().Value(), environment: map[string]string{},
		}
		if pod.TerminationGracePeriodSeconds != nil {
			is.grace = time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
		}
		for _, from := range c.EnvFrom {
			settings, ok := built["*v1.ConfigMap "+from.ConfigMapRef.Name].(*corev1.ConfigMap)
			if !ok {
				t.Fatalf("kubernetes: there is no ConfigMap %s", from.ConfigMapRef.Name)
			}
			maps.Copy(is.environment, settings.Data)
		}
		for _, e := range c.Env {
			is.environment[e.Name] = e.Value
		}
		for _, volume := range pod.Volumes {
			for _, mount := range c.VolumeMounts {
				if volume.Name == mount.Name && volume.Secret != nil {
					example, ok := examples["*v1.Secret "+volume.Secret.SecretName].(*corev1.Secret)
					if !ok || *volume.Secret.DefaultMode != 0o440 {
						t.Fatalf("kubernetes: the Secret %s has no example, or can be read by all", volume.Secret.SecretName)
					}
					for key := range example.StringData {
						is.files = append(is.files, path.Join(mount.MountPath, key))
					}
				}
			}
		}
		found[d.Name] = is
	}
	return found
}

// TestSelectors: what selects pods selects some, and the ports that it names are theirs.
func TestSelectors(t *testing.T) {
	t.Parallel()
	built := build(t, deploy)
	// pods returns the ports of the pods that a selector selects, by name and number.
	pods := func(what string, selector labels.Selector) map[string]bool {
		t.Helper()
		ports := map[string]bool{}
		for _, object := range built {
			if d, ok := object.(*appsv1.Deployment); ok && !selector.Empty() && selector.Matches(labels.Set(d.Spec.Template.Labels)) {
				for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
					ports[p.Name], ports[fmt.Sprint(p.ContainerPort)] = true, true
				}
			}
		}
		if len(ports) == 0 {
			t.Errorf("%s selects no pod", what)
		}
		return ports
	}
	selected := func(what string, s *metav1.LabelSelector) map[string]bool {
		t.Helper()
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return pods(what, selector)
	}
	denied := false
	for name, object := range built {
		switch o := object.(type) {
		case *appsv1.Deployment:
			ports := selected(name, o.Spec.Selector)
			for _, probe := range []*corev1.Probe{o.Spec.Template.Spec.Containers[0].ReadinessProbe, o.Spec.Template.Spec.Containers[0].LivenessProbe} {
				if probe.HTTPGet != nil && !ports[probe.HTTPGet.Port.String()] {
					t.Errorf("%s: a probe asks the port %s", name, probe.HTTPGet.Port.String())
				}
			}
		case *corev1.Service:
			ports := pods(name, labels.SelectorFromSet(o.Spec.Selector))
			for _, p := range o.Spec.Ports {
				if !ports[p.TargetPort.String()] || p.TargetPort.String() == "admin" {
					t.Errorf("%s leads to the port %s", name, p.TargetPort.String())
				}
			}
		case *policyv1.PodDisruptionBudget:
			selected(name, o.Spec.Selector)
		case *monitoringv1.PodMonitor:
			ports := selected(name, &o.Spec.Selector)
			for _, endpoint := range o.Spec.PodMetricsEndpoints {
				if endpoint.Port == nil || !ports[*endpoint.Port] {
					t.Errorf("%s asks an unknown port", name)
				}
			}
		case *networkingv1.NetworkPolicy:
			if len(o.Spec.PolicyTypes) != 2 {
				t.Errorf("%s is not about both directions", name)
			}
			if len(o.Spec.PodSelector.MatchLabels) == 0 {
				denied = len(o.Spec.Ingress)+len(o.Spec.Egress) == 0
				continue
			}
			ports := selected(name, &o.Spec.PodSelector)
			for _, rule := range o.Spec.Ingress {
				if len(rule.From) == 0 || len(rule.Ports) == 0 {
					t.Errorf("%s lets in everybody, or by every port", name)
				}
				for _, p := range rule.Ports {
					if !ports[p.Port.String()] {
						t.Errorf("%s lets in by the port %s", name, p.Port.String())
					}
				}
			}
			for _, rule := range o.Spec.Egress {
				if len(rule.To) == 0 || len(rule.Ports) == 0 {
					t.Errorf("%s lets out to everybody, or by every port", name)
				}
				for _, peer := range rule.To {
					if peer.NamespaceSelector == nil && peer.PodSelector != nil {
						selected(name, peer.PodSelector)
					}
				}
			}
		}
	}
	if !denied {
		t.Error("no NetworkPolicy denies what others do not allow")
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
	made, ok := decode(t, "the command", output)[0].(*monitoringv1.PrometheusRule)
	if !ok || made.Namespace != "resetd" {
		t.Fatalf("it makes %s", output)
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
