package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// exampleSecrets is decoded and compared, and part of no kustomization: applying that must not
// replace a secret by a placeholder.
const exampleSecrets = "secret.example.yaml"

const placeholder = "REPLACE-ME"

// objects are what a cluster would be given.
type objects struct {
	namespaces   []*corev1.Namespace
	accounts     []*corev1.ServiceAccount
	configMaps   []*corev1.ConfigMap
	secrets      []*corev1.Secret
	services     []*corev1.Service
	deployments  []*appsv1.Deployment
	budgets      []*policyv1.PodDisruptionBudget
	policies     []*networkingv1.NetworkPolicy
	podMonitors  []*monitoringv1.PodMonitor
	namespacesOf map[string]string // by kind and name
}

// newDecoder makes one that knows the kinds that are in use here, and refuses members that they do
// not have.
func newDecoder() (runtime.Decoder, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, monitoringv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true}), nil
}

// decode adds the objects of a YAML stream, and says what is wrong with it.
func (o *objects) decode(f *findings, where string, content []byte) {
	decoder, err := newDecoder()
	if err != nil {
		f.want(false, "%s: %v", where, err)
		return
	}
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			f.want(false, "%s: %v", where, err)
			return
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			f.want(false, "%s: %v", where, err)
			continue
		}
		o.add(f, where, object)
	}
}

func (o *objects) add(f *findings, where string, object runtime.Object) {
	switch object := object.(type) {
	case *corev1.Namespace:
		o.namespaces = append(o.namespaces, object)
		return
	case *corev1.ServiceAccount:
		o.accounts = append(o.accounts, object)
	case *corev1.ConfigMap:
		o.configMaps = append(o.configMaps, object)
	case *corev1.Secret:
		o.secrets = append(o.secrets, object)
	case *corev1.Service:
		o.services = append(o.services, object)
	case *appsv1.Deployment:
		o.deployments = append(o.deployments, object)
	case *policyv1.PodDisruptionBudget:
		o.budgets = append(o.budgets, object)
	case *networkingv1.NetworkPolicy:
		o.policies = append(o.policies, object)
	case *monitoringv1.PodMonitor:
		o.podMonitors = append(o.podMonitors, object)
	default:
		f.want(false, "%s: nothing is known here of %T", where, object)
		return
	}
	if named, ok := object.(metav1.Object); ok {
		if o.namespacesOf == nil {
			o.namespacesOf = map[string]string{}
		}
		o.namespacesOf[fmt.Sprintf("%T %s", object, named.GetName())] = named.GetNamespace()
	}
}

// checkKubernetes decodes and builds deploy/kubernetes and judges it. Nil: there is nothing to
// compare, which has been said.
func checkKubernetes(f *findings, deploy string, known settings) *deployment {
	folder := filepath.Join(deploy, "kubernetes")
	var source objects
	err := filepath.WalkDir(folder, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".yaml" || entry.Name() == "kustomization.yaml" {
			return err
		}
		content, err := os.ReadFile(file) //nolint:gosec // the caller's folder
		source.decode(f, "kubernetes/"+entry.Name(), content)
		return err
	})
	if err != nil {
		f.want(false, "kubernetes: %v", err)
		return nil
	}
	var built objects
	for _, kustomization := range []string{folder, filepath.Join(folder, "prometheus-operator")} {
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), kustomization)
		if err != nil {
			f.want(false, "%s: %v", filepath.Base(kustomization), err)
			return nil
		}
		content, err := resources.AsYaml()
		if err != nil {
			f.want(false, "%s: %v", filepath.Base(kustomization), err)
			return nil
		}
		built.decode(f, filepath.Base(kustomization)+", built", content)
	}
	if len(*f) > 0 && len(built.deployments) == 0 {
		return nil
	}
	for object := range source.namespacesOf {
		_, there := built.namespacesOf[object]
		f.want(there || strings.HasPrefix(object, "*v1.Secret "), "kubernetes: %s is in no kustomization", object)
	}
	return checkObjects(f, &built, &source, known)
}

func named[T metav1.Object](all []T, name string) (found T, ok bool) {
	for _, one := range all {
		if one.GetName() == name {
			return one, true
		}
	}
	return found, false
}

// checkObjects judges what is built; examples are the Secrets as they should be.
func checkObjects(f *findings, built, examples *objects, known settings) *deployment {
	resetd, hasResetd := named(built.deployments, "resetd")
	redis, hasRedis := named(built.deployments, "redis")
	if !hasResetd || !hasRedis {
		f.want(false, "kubernetes: there are not two Deployments, resetd and redis")
		return nil
	}
	f.want(len(built.secrets) == 0, "kubernetes: a Secret is part of a kustomization")
	checkNamespaces(f, built)
	for _, d := range built.deployments {
		checkPod(f, "kubernetes, "+d.Name, d, built, examples)
	}

	container := resetd.Spec.Template.Spec.Containers[0]
	environment := environmentOf(f, &container, built)
	checkEnvironment(f, "kubernetes", environment, known)
	checkMemory(f, "kubernetes", environment, container.Resources.Limits.Memory().Value())
	checkGrace(f, "kubernetes", time.Duration(value(resetd.Spec.Template.Spec.TerminationGracePeriodSeconds))*time.Second, environment, known)
	for setting, file := range environment {
		if strings.HasSuffix(setting, "_FILE") {
			f.want(secretFile(&resetd.Spec.Template.Spec, &container, examples, file), "kubernetes: %s is %s, which is in no Secret", setting, file)
		}
	}
	checkAvailability(f, resetd, built)
	ports := containerPorts(&container)
	f.want(fmt.Sprint(ports["http"]) == port(environment, known, "LISTEN_ADDR"), "kubernetes: the port http is not that of LISTEN_ADDR")
	f.want(fmt.Sprint(ports["admin"]) == port(environment, known, "ADMIN_ADDR"), "kubernetes: the port admin is not that of ADMIN_ADDR")
	f.want(strings.HasPrefix(environment["ADMIN_ADDR"], ":"), "kubernetes: ADMIN_ADDR is %q, where no probe reaches it", environment["ADMIN_ADDR"])
	checkProbes(f, &container)
	checkServices(f, built)
	checkMetrics(f, resetd, built, ports)
	checkPolicies(f, built, resetd, redis, ports)

	redisContainer := redis.Spec.Template.Spec.Containers[0]
	f.want(slices.ContainsFunc(redisContainer.Command, func(word string) bool {
		return secretFile(&redis.Spec.Template.Spec, &redisContainer, examples, word)
	}), "kubernetes: redis is not started with its Secret")
	return &deployment{
		image: container.Image, user: userOf(resetd), environment: environment,
		redisImage: redisContainer.Image, redisUser: userOf(redis),
		redisEntrypoint: redisContainer.Command, redisCommand: slices.Concat(redisContainer.Command, redisContainer.Args),
		redisMemory: redisContainer.Resources.Limits.Memory().Value(),
	}
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func userOf(d *appsv1.Deployment) string {
	s := d.Spec.Template.Spec.SecurityContext
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", value(s.RunAsUser), value(s.RunAsGroup))
}

func portText(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// checkNamespaces: all is in the one namespace, which lets nothing in that asks for more.
func checkNamespaces(f *findings, built *objects) {
	if len(built.namespaces) != 1 {
		f.want(false, "kubernetes: there are %d namespaces, want 1", len(built.namespaces))
		return
	}
	namespace := built.namespaces[0]
	f.want(namespace.Labels["pod-security.kubernetes.io/enforce"] == "restricted", "kubernetes: the namespace does not enforce the restricted pod security standard")
	for object, in := range built.namespacesOf {
		f.want(in == namespace.Name, "kubernetes: %s is in the namespace %q", object, in)
	}
}

// checkPod is what goes for every Deployment.
func checkPod(f *findings, where string, d *appsv1.Deployment, built, examples *objects) {
	pod := d.Spec.Template.Spec
	f.want(selects(d.Spec.Selector, d.Spec.Template.Labels), "%s: its selector does not select its pods", where)
	account, there := named(built.accounts, pod.ServiceAccountName)
	f.want(there && pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken &&
		account.AutomountServiceAccountToken != nil && !*account.AutomountServiceAccountToken, "%s: it is given a token of the cluster", where)
	f.want(!pod.HostNetwork && !pod.HostPID && !pod.HostIPC, "%s: it shares something of its node", where)

	security := value(pod.SecurityContext)
	f.want(value(security.RunAsNonRoot) && value(security.RunAsUser) > 0 && value(security.RunAsGroup) > 0, "%s: it may run as root", where)
	f.want(security.SeccompProfile != nil && security.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, "%s: it has no seccomp profile", where)
	f.want(len(pod.InitContainers) == 0 && len(pod.Containers) == 1, "%s: there is not one container", where)
	for _, c := range pod.Containers {
		s := value(c.SecurityContext)
		f.want(value(s.ReadOnlyRootFilesystem), "%s: its file system can be written", where)
		f.want(s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation && !value(s.Privileged), "%s: it may gain privileges", where)
		f.want(s.Capabilities != nil && slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) && len(s.Capabilities.Add) == 0, "%s: it has capabilities", where)
		f.want(s.RunAsUser == nil && s.RunAsNonRoot == nil && s.SeccompProfile == nil, "%s: the container overrides the pod's security", where)
		for _, resource := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := c.Resources.Limits[resource], c.Resources.Requests[resource]
			f.want(!limit.IsZero() && !request.IsZero() && request.Cmp(limit) <= 0, "%s: %s has no request and limit", where, resource)
		}
		f.want(c.StartupProbe != nil && c.LivenessProbe != nil && c.ReadinessProbe != nil, "%s: a probe is missing", where)
		checkImage(f, where, c.Image, d.Name == "resetd")
		for _, e := range c.Env {
			f.want(e.ValueFrom == nil, "%s: %s is not a plain value", where, e.Name)
		}
		for _, e := range c.EnvFrom {
			f.want(e.SecretRef == nil, "%s: a Secret is in the environment, not in files", where)
		}
	}
	for _, volume := range pod.Volumes {
		isBounded := volume.EmptyDir != nil && volume.EmptyDir.SizeLimit != nil
		if f.want(volume.Secret != nil || isBounded, "%s: the volume %s is neither a Secret nor bounded", where, volume.Name); volume.Secret == nil {
			continue
		}
		f.want(value(volume.Secret.DefaultMode) == 0o440, "%s: not only its own user reads %s", where, volume.Name)
		f.want(security.FSGroup != nil && value(security.FSGroup) == value(security.RunAsGroup), "%s: %s is not given to its user's group", where, volume.Name)
		example, there := named(examples.secrets, volume.Secret.SecretName)
		if f.want(there, "%s: %s has no Secret %s", where, exampleSecrets, volume.Secret.SecretName); !there {
			continue
		}
		for key, text := range example.StringData {
			f.want(strings.Contains(text, placeholder), "%s: %s of %s is no placeholder", exampleSecrets, key, example.Name)
		}
		f.want(len(example.Data) == 0, "%s: %s has more than placeholders", exampleSecrets, example.Name)
	}
}

// environmentOf is what the container's process is given.
func environmentOf(f *findings, c *corev1.Container, built *objects) map[string]string {
	environment := map[string]string{}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil {
			continue
		}
		configMap, there := named(built.configMaps, from.ConfigMapRef.Name)
		if f.want(there, "kubernetes: there is no ConfigMap %s", from.ConfigMapRef.Name); there {
			maps.Copy(environment, configMap.Data)
		}
	}
	for _, e := range c.Env {
		environment[e.Name] = e.Value
	}
	return environment
}

// secretFile says whether a path is a key of a Secret that is mounted there.
func secretFile(pod *corev1.PodSpec, c *corev1.Container, examples *objects, file string) bool {
	for _, mount := range c.VolumeMounts {
		for _, volume := range pod.Volumes {
			if volume.Name != mount.Name || volume.Secret == nil || !mount.ReadOnly || mount.MountPath != path.Dir(file) {
				continue
			}
			if example, there := named(examples.secrets, volume.Secret.SecretName); there && example.StringData[path.Base(file)] != "" {
				return true
			}
		}
	}
	return false
}

// checkAvailability: there is always one that answers.
func checkAvailability(f *findings, d *appsv1.Deployment, built *objects) {
	f.want(value(d.Spec.Replicas) >= 2, "kubernetes: there is one instance, want 2 or more")
	rolling := value(d.Spec.Strategy.RollingUpdate)
	f.want(rolling.MaxUnavailable != nil && *rolling.MaxUnavailable == intstr.FromInt32(0), "kubernetes: an update takes an instance away before there is another")
	pod := d.Spec.Template.Spec
	spread := map[string]bool{}
	for _, constraint := range pod.TopologySpreadConstraints {
		if selects(constraint.LabelSelector, d.Spec.Template.Labels) {
			spread[constraint.TopologyKey] = true
		}
	}
	f.want(spread[corev1.LabelHostname] && spread[corev1.LabelTopologyZone], "kubernetes: nothing spreads the instances over nodes and zones")
	for _, budget := range built.budgets {
		if selects(budget.Spec.Selector, d.Spec.Template.Labels) {
			f.want(budget.Spec.MinAvailable == nil && budget.Spec.MaxUnavailable != nil && *budget.Spec.MaxUnavailable == intstr.FromInt32(1),
				"kubernetes: the PodDisruptionBudget does not allow exactly one instance to go")
			f.want(value(budget.Spec.UnhealthyPodEvictionPolicy) == policyv1.AlwaysAllow, "kubernetes: an instance that is not ready stands in the way of a drain")
			return
		}
	}
	f.want(false, "kubernetes: no PodDisruptionBudget is for resetd")
}

func checkProbes(f *findings, c *corev1.Container) {
	for name, probe := range map[string]struct {
		*corev1.Probe
		path string
	}{"startup": {c.StartupProbe, "/livez"}, "liveness": {c.LivenessProbe, "/livez"}, "readiness": {c.ReadinessProbe, "/readyz"}} {
		if probe.Probe != nil {
			f.want(probe.HTTPGet != nil && probe.HTTPGet.Path == probe.path && probe.HTTPGet.Port == intstr.FromString("admin"),
				"kubernetes: the %s probe does not ask %s of the port admin", name, probe.path)
		}
	}
}

func containerPorts(c *corev1.Container) map[string]int32 {
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	return ports
}

// checkServices: each leads to a port that its pods have, and none to the operator's.
func checkServices(f *findings, built *objects) {
	for name, number := range map[string]int32{"resetd": 80, "redis": 6379} {
		service, there := named(built.services, name)
		deployed, _ := named(built.deployments, name)
		if f.want(there, "kubernetes: there is no Service %s", name); !there {
			continue
		}
		f.want(service.Spec.Type == "" || service.Spec.Type == corev1.ServiceTypeClusterIP, "kubernetes: the Service %s is reached from outside of the cluster", name)
		f.want(labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(deployed.Spec.Template.Labels)), "kubernetes: the Service %s selects no pod of its own", name)
		ports := containerPorts(&deployed.Spec.Template.Spec.Containers[0])
		f.want(len(service.Spec.Ports) == 1 && service.Spec.Ports[0].Port == number,
			"kubernetes: the port of the Service %s is not %d, which README.md and redis_url name", name, number)
		for _, p := range service.Spec.Ports {
			f.want(ports[p.TargetPort.StrVal] != 0, "kubernetes: the Service %s leads to the port %s, which there is not", name, p.TargetPort.String())
			f.want(p.TargetPort.StrVal != "admin", "kubernetes: the operator's port is part of the Service")
		}
	}
}

func checkMetrics(f *findings, d *appsv1.Deployment, built *objects, ports map[string]int32) {
	annotations := d.Spec.Template.Annotations
	f.want(annotations["prometheus.io/scrape"] == "true" && annotations["prometheus.io/path"] == "/metrics" &&
		annotations["prometheus.io/port"] == fmt.Sprint(ports["admin"]), "kubernetes: the annotations for Prometheus do not lead to /metrics")
	for _, monitor := range built.podMonitors {
		f.want(selects(&monitor.Spec.Selector, d.Spec.Template.Labels), "kubernetes: the PodMonitor selects no pod of resetd")
		for _, endpoint := range monitor.Spec.PodMetricsEndpoints {
			f.want(value(endpoint.Port) == "admin" && endpoint.Path == "/metrics", "kubernetes: the PodMonitor does not ask for /metrics of the port admin")
		}
		f.want(d.Spec.Template.Labels[monitor.Spec.JobLabel] == "resetd", "kubernetes: the PodMonitor's job is not called resetd, as the alerts take it to be")
	}
	f.want(len(built.podMonitors) == 1, "kubernetes: there are %d PodMonitors, want 1", len(built.podMonitors))
}

func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && !s.Empty() && s.Matches(labels.Set(set))
}

// checkPolicies: nobody talks to anybody, but for the named few.
func checkPolicies(f *findings, built *objects, resetd, redis *appsv1.Deployment, ports map[string]int32) {
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	denied := false
	in, out := map[string][]networkingv1.NetworkPolicyPeer{}, map[string][]networkingv1.NetworkPolicyPeer{}
	for _, policy := range built.policies {
		spec := policy.Spec
		f.want(slices.Equal(spec.PolicyTypes, both), "kubernetes: the NetworkPolicy %s is not about both directions", policy.Name)
		if len(spec.PodSelector.MatchLabels)+len(spec.PodSelector.MatchExpressions) == 0 {
			denied = denied || len(spec.Ingress)+len(spec.Egress) == 0
			continue
		}
		subject := policy.Name
		for _, d := range built.deployments {
			if selects(&spec.PodSelector, d.Spec.Template.Labels) {
				subject = d.Name
			}
		}
		for _, rule := range spec.Ingress {
			collect(f, in, subject+" from", rule.Ports, rule.From)
		}
		for _, rule := range spec.Egress {
			collect(f, out, subject+" to", rule.Ports, rule.To)
		}
	}
	f.want(denied, "kubernetes: no NetworkPolicy denies what others do not allow")

	http, admin := fmt.Sprintf("resetd from TCP %d", ports["http"]), fmt.Sprintf("resetd from TCP %d", ports["admin"])
	f.want(slices.Equal(slices.Sorted(maps.Keys(in)), slices.Sorted(slices.Values([]string{http, admin, "redis from TCP 6379"}))),
		"kubernetes: the NetworkPolicies let in %q", slices.Sorted(maps.Keys(in)))
	f.want(fmt.Sprint(in[http]) != fmt.Sprint(in[admin]), "kubernetes: those who send requests reach the operator's port")
	for _, peer := range slices.Concat(in[http], in[admin]) {
		f.want(peer.NamespaceSelector != nil && len(peer.NamespaceSelector.MatchLabels) > 0, "kubernetes: resetd is reached from any namespace or address")
	}
	onlyPods(f, in["redis from TCP 6379"], resetd, "redis is reached by others than resetd")
	onlyPods(f, out["resetd to TCP 6379"], redis, "resetd reaches others than redis by Redis' port")
	f.want(slices.Equal(slices.Sorted(maps.Keys(out)), []string{"resetd to TCP 443", "resetd to TCP 53", "resetd to TCP 6379", "resetd to UDP 53"}),
		"kubernetes: the NetworkPolicies let out %q", slices.Sorted(maps.Keys(out)))
	for _, protocol := range []string{"UDP", "TCP"} {
		peers := out["resetd to "+protocol+" 53"]
		f.want(len(peers) == 1 && peers[0].IPBlock == nil &&
			only(peers[0].NamespaceSelector, "kubernetes.io/metadata.name", "kube-system") && only(peers[0].PodSelector, "k8s-app", "kube-dns"),
			"kubernetes: resetd reaches others than the cluster's DNS by port 53 of %s", protocol)
	}
	blocks := map[string][]string{}
	for _, peer := range out["resetd to TCP 443"] {
		if peer.IPBlock == nil {
			f.want(false, "kubernetes: resetd reaches pods by port 443")
			continue
		}
		blocks[peer.IPBlock.CIDR] = slices.Sorted(slices.Values(peer.IPBlock.Except))
	}
	f.want(len(out["resetd to TCP 443"]) == len(outside) && maps.EqualFunc(blocks, outside, slices.Equal[[]string]),
		"kubernetes: by port 443 resetd reaches %v, want all but the networks of clusters and of clouds' metadata: %v", blocks, outside)
}

// outside is the Internet: all addresses, but for those that networks use within.
var outside = map[string][]string{
	"0.0.0.0/0": {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"},
	"::/0":      {"fc00::/7", "fe80::/10"},
}

// only says whether a selector asks for this label, and for nothing else.
func only(selector *metav1.LabelSelector, label, value string) bool {
	return selector != nil && len(selector.MatchExpressions) == 0 && maps.Equal(selector.MatchLabels, map[string]string{label: value})
}

// collect notes who is let through by which port. A rule without ports or peers is for all.
func collect(f *findings, by map[string][]networkingv1.NetworkPolicyPeer, subject string, ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) {
	f.want(len(ports) > 0 && len(peers) > 0, "kubernetes: a NetworkPolicy rule %s is for everybody or every port", subject)
	for _, p := range ports {
		key := fmt.Sprintf("%s %s %s", subject, value(p.Protocol), p.Port.String())
		by[key] = append(by[key], peers...)
	}
}

func onlyPods(f *findings, peers []networkingv1.NetworkPolicyPeer, d *appsv1.Deployment, otherwise string) {
	f.want(len(peers) == 1 && peers[0].NamespaceSelector == nil && peers[0].IPBlock == nil && selects(peers[0].PodSelector, d.Spec.Template.Labels), "kubernetes: %s", otherwise)
}
