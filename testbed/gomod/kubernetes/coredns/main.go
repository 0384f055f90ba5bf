// CoreDNS with the plugins that the bed's Corefile names. The full one compiles the SDKs of three clouds.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// in the order in which a query passes them, which is CoreDNS' own
	dnsserver.Directives = []string{"ready", "health", "errors", "cache", "template", "kubernetes"}
	coremain.Run()
}
