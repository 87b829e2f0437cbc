// Command kubenode is a single-node Kubernetes in one binary, for development and tests:
// each component is Kubernetes' own, linked in, and is chosen by the name of the command.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	krcmd "github.com/cloudnativelabs/kube-router/v2/pkg/cmd"
	kroptions "github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/etcdmain"
	helmcmd "helm.sh/helm/v4/pkg/cmd"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/klog/v2"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// commands are the components that bring a cobra command with Kubernetes' own flags and logging.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

// programs are the others.
var programs = map[string]func() error{
	"coredns":               coredns,
	"directory-provisioner": provision,
	"etcd":                  func() error { etcdmain.Main(os.Args); return nil },
	"helm":                  helm,
	"kubectl":               func() error { return cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()) },
	"network-policy":        networkPolicy,
}

func main() {
	name := filepath.Base(os.Args[0])
	if name == "kubenode" {
		if len(os.Args) < 2 {
			fail(fmt.Errorf("usage: kubenode COMPONENT [ARGS]"))
		}
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	if command, ok := commands[name]; ok {
		os.Exit(cli.Run(command()))
	}
	program, ok := programs[name]
	if !ok {
		fail(fmt.Errorf("unknown component %q", name))
	}
	if err := program(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func coredns() error {
	// Without generated code the order of the plugins is ours to say.
	dnsserver.Directives = []string{"errors", "health", "ready", "cache", "kubernetes"}
	coremain.Run()
	return nil
}

func helm() error {
	command, err := helmcmd.NewRootCmd(os.Stdout, os.Args[1:], helmcmd.SetupLogging)
	if err != nil {
		return err
	}
	if command.Execute() != nil {
		os.Exit(1) // Helm has printed the reason.
	}
	return nil
}

// networkPolicy is kube-router's firewall alone, on iptables and ipset.
func networkPolicy() error {
	klog.InitFlags(nil)
	config := kroptions.NewKubeRouterConfig()
	flags := pflag.NewFlagSet("network-policy", pflag.ExitOnError)
	config.AddFlags(flags)
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if err := flag.CommandLine.Parse(nil); err != nil { // klog complains when its flags were never parsed
		return err
	}
	if err := flag.Set("logtostderr", "true"); err != nil {
		return err
	}
	router, err := krcmd.NewKubeRouterDefault(config)
	if err != nil {
		return err
	}
	return router.Run()
}
