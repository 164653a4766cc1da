/*
Manifests checks deploy/compose.yaml and deploy/kubernetes without a network, a cluster or a
container runtime.

	manifests -resetd ../../bin/resetd [-deploy ../../deploy]

Every file is decoded into the very types of Kubernetes and of Compose, and a member that they do
not have, or one that is there twice, is a mistake: a cluster would ignore a mistyped
"readOnlyRootFilesytem" and run without it. The kustomizations are built as kubectl builds them.
Then come rules of this project's own: what must be said, and that what is said in several
places is the same. resetd itself judges the settings.

All that is wrong is printed, a line each, and the exit status is 1.
*/
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
)

func main() {
	deploy := flag.String("deploy", "../../deploy", "the folder with compose.yaml and kubernetes/")
	resetd := flag.String("resetd", "../../bin/resetd", "the program whose settings the files set")
	flag.Parse()
	wrong, err := check(context.Background(), *deploy, program{*resetd})
	if err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
	for _, one := range wrong {
		fmt.Fprintln(os.Stderr, one)
	}
	if len(wrong) > 0 {
		os.Exit(1)
	}
	fmt.Println("manifests: deploy/compose.yaml and deploy/kubernetes hold")
}

// findings are all that is wrong, in the order in which it was found.
type findings []string

// want adds what is said unless it holds.
func (f *findings) want(holds bool, format string, args ...any) {
	if !holds {
		*f = append(*f, fmt.Sprintf(format, args...))
	}
}

// check judges everything. An error is what leaves nothing to judge.
func check(ctx context.Context, deploy string, resetd program) (findings, error) {
	known, err := resetd.settings(ctx)
	if err != nil {
		return nil, err
	}
	version, err := resetd.version(ctx)
	if err != nil {
		return nil, err
	}
	var f findings
	composed := checkCompose(ctx, &f, deploy, known)
	clustered := checkKubernetes(&f, deploy, known)
	if composed == nil || clustered == nil { // said why
		return f, nil
	}
	resetd.judge(ctx, &f, "compose.yaml", composed.environment)
	resetd.judge(ctx, &f, "kubernetes", clustered.environment)
	checkVersion(&f, "compose.yaml", composed.image, version)
	checkVersion(&f, "kustomization.yaml", clustered.image, version)
	checkRedis(&f, "compose.yaml", composed)
	checkRedis(&f, "kubernetes", clustered)

	for name, pair := range map[string][2]string{
		"the image of resetd":   {composed.image, clustered.image},
		"the image of redis":    {composed.redisImage, clustered.redisImage},
		"the command of redis":  {commonCommand(composed.redisCommand), commonCommand(clustered.redisCommand)},
		"the user of resetd":    {composed.user, clustered.user},
		"the user of redis":     {composed.redisUser, clustered.redisUser},
		"the user of the image": {composed.user, imageUser(deploy)},
	} {
		f.want(pair[0] == pair[1], "%s is %q in compose.yaml and %q elsewhere", name, pair[0], pair[1])
	}
	return f, nil
}

// deployment is what the two ways to run resetd have in common.
type deployment struct {
	image, user           string
	environment           map[string]string
	redisImage, redisUser string
	redisEntrypoint       []string // what replaces the image's
	redisCommand          []string // all of it, with the entrypoint
	redisMemory           int64    // the limit, in bytes
}
