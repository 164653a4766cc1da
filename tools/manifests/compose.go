package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// checkCompose loads deploy/compose.yaml by Compose's own schema and judges it. Nil: it could
// not be loaded, which has been said.
func checkCompose(ctx context.Context, f *findings, deploy string, known settings) *deployment {
	const where = "compose.yaml"
	folder, err := filepath.Abs(deploy)
	if err != nil {
		f.want(false, "%s: %v", where, err)
		return nil
	}
	project, err := loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir: folder, ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(folder, where)}}, Environment: types.Mapping{},
	}, func(o *loader.Options) { o.SetProjectName("resetd", false) })
	if err != nil {
		f.want(false, "%s: %v", where, err)
		return nil
	}
	resetd, redis := project.Services["resetd"], project.Services["redis"]
	if resetd.Name == "" || redis.Name == "" || len(project.Services) != 2 {
		f.want(false, "%s: there are not two services, resetd and redis", where)
		return nil
	}
	for name, service := range project.Services {
		checkService(f, where+", "+name, service)
		checkImage(f, where+", "+name, service.Image, name == "resetd")
	}
	environment := map[string]string{}
	for name, value := range resetd.Environment {
		f.want(value != nil, "%s: %s would be taken from the caller's environment", where, name)
		if value != nil {
			environment[name] = *value
		}
	}
	checkEnvironment(f, where, environment, known)
	checkMemory(f, where, environment, int64(resetd.MemLimit))
	f.want(resetd.HealthCheck != nil && slices.Equal(resetd.HealthCheck.Test, []string{"CMD", "/resetd", "healthcheck"}),
		"%s: the health check is not the program's own, and the image has no other program", where)
	checkComposeSecrets(f, where, project, environment)
	checkComposeNetworks(f, where, project, environment, port(environment, known, "LISTEN_ADDR"))
	if resetd.StopGracePeriod != nil {
		checkGrace(f, where, time.Duration(*resetd.StopGracePeriod), environment, known)
	}
	f.want(resetd.DependsOn["redis"].Condition == types.ServiceConditionHealthy, "%s: resetd does not wait for a healthy redis", where)
	if resetd.Build != nil {
		version := resetd.Build.Args["VERSION"]
		f.want(version != nil && strings.HasSuffix(resetd.Image, ":"+*version), "%s: the version that is built is not that of the image", where)
	}
	return &deployment{
		image: resetd.Image, user: resetd.User, environment: environment,
		redisImage: redis.Image, redisUser: redis.User,
		redisEntrypoint: redis.Entrypoint, redisCommand: slices.Concat(redis.Entrypoint, redis.Command), redisMemory: int64(redis.MemLimit),
	}
}

// checkService is what goes for every container.
func checkService(f *findings, where string, s types.ServiceConfig) {
	f.want(s.ReadOnly, "%s: its file system can be written", where)
	f.want(slices.Equal(s.CapDrop, []string{"ALL"}) && len(s.CapAdd) == 0 && !s.Privileged, "%s: it has capabilities", where)
	f.want(slices.Contains(s.SecurityOpt, "no-new-privileges:true"), "%s: it may gain privileges", where)
	f.want(s.User != "" && !strings.HasPrefix(s.User, "0") && !strings.HasPrefix(s.User, "root"), "%s: it runs as %q", where, s.User)
	f.want(s.MemLimit > 0 && s.CPUS > 0 && s.PidsLimit > 0, "%s: memory, processors or processes have no limit", where)
	f.want(s.HealthCheck != nil && len(s.HealthCheck.Test) > 1 && !s.HealthCheck.Disable, "%s: there is no health check", where)
	f.want(s.Restart == "unless-stopped" || s.Restart == "always", "%s: it is not started again", where)
	f.want(s.StopGracePeriod != nil, "%s: there is no stop_grace_period", where)
	f.want(s.Logging != nil && s.Logging.Options["max-size"] != "" && s.Logging.Options["max-file"] != "", "%s: its log grows without bound", where)
	isShared := func(v types.ServiceVolumeConfig) bool { return v.Type != types.VolumeTypeVolume }
	f.want(!slices.ContainsFunc(s.Volumes, isShared) && s.NetworkMode == "" && s.Pid == "" && s.Ipc == "" && len(s.Devices) == 0, "%s: it shares something of the machine", where)
}

// checkComposeSecrets: each is a file, and read by whom it is for.
func checkComposeSecrets(f *findings, where string, project *types.Project, environment map[string]string) {
	used := map[string]bool{}
	for name, service := range project.Services {
		for _, secret := range service.Secrets {
			used[secret.Source] = true
			f.want(project.Secrets[secret.Source].File != "", "%s: the secret %s of %s is no file", where, secret.Source, name)
			target := "/run/secrets/" + secret.Source
			read := slices.Contains(service.Command, target)
			if name == "resetd" {
				for setting, path := range environment {
					read = read || strings.HasSuffix(setting, "_FILE") && path == target
				}
			}
			f.want(read, "%s: %s does not read its secret %s", where, name, secret.Source)
		}
	}
	for name := range project.Secrets {
		f.want(used[name], "%s: nobody uses the secret %s", where, name)
	}
	for setting, path := range environment {
		if strings.HasSuffix(setting, "_FILE") {
			f.want(slices.ContainsFunc(project.Services["resetd"].Secrets, func(s types.ServiceSecretConfig) bool { return path == "/run/secrets/"+s.Source }),
				"%s: %s is %s, which is no secret of resetd", where, setting, path)
		}
	}
}

// checkComposeNetworks: Redis is reached by resetd alone, and resetd by the machine alone.
func checkComposeNetworks(f *findings, where string, project *types.Project, environment map[string]string, listen string) {
	resetd, redis := project.Services["resetd"], project.Services["redis"]
	f.want(len(redis.Ports) == 0, "%s: redis is published", where)
	f.want(len(resetd.Ports) == 1, "%s: resetd publishes %d ports, want 1", where, len(resetd.Ports))
	for _, published := range resetd.Ports {
		f.want(published.HostIP == "127.0.0.1", "%s: port %s is published beyond this machine", where, published.Published)
		f.want(listen == portText(published.Target), "%s: port %d is published, and resetd listens on %s", where, published.Target, listen)
	}
	shared := false
	for name := range redis.Networks {
		f.want(project.Networks[name].Internal, "%s: redis is on the network %s, which leads out", where, name)
		_, both := resetd.Networks[name]
		shared = shared || both
	}
	f.want(shared, "%s: resetd and redis share no network", where)

	var gateways []string
	for name := range resetd.Networks {
		if network := project.Networks[name]; !network.Internal {
			for _, pool := range network.Ipam.Config {
				subnet, err := netip.ParsePrefix(pool.Subnet)
				gateway, gatewayErr := netip.ParseAddr(pool.Gateway)
				f.want(err == nil && gatewayErr == nil && subnet.Contains(gateway), "%s: the gateway of %s is not on it", where, name)
				gateways = append(gateways, pool.Gateway+"/32")
			}
		}
	}
	f.want(strings.Join(gateways, ",") == environment["TRUSTED_PROXIES"],
		"%s: TRUSTED_PROXIES is %q, and a proxy on this machine comes from %q", where, environment["TRUSTED_PROXIES"], gateways)
}
