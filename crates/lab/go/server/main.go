// Command server is what a lab's virtual machines, bare-metal servers and bare addresses run, and Pods that are asked by every
// kind of probe: it says who it is, as `agnhost netexec` does, and fails in whatever way it is told to.
//
//	server NAME    serves
//	server -ca     prints the certificate of the authority that signed its certificate, in PEM
//
// It serves by a second process, so that it can be told to kill that, and to start it again:
//
//	POST :8079/ORDER ──► server NAME ──(its standard input)──► server -serve NAME
//	                     orders.go    ◄─(its standard output)─  serve.go
package main

import (
	"encoding/pem"
	"fmt"
	"os"
)

// crates/lab/src/server.rs has them too.
const (
	httpPort    = 8080
	udpPort     = 8081
	httpsPort   = 8443
	grpcPort    = 50051
	controlPort = 8079
)

func main() {
	words := os.Args[1:]
	switch {
	case len(words) == 1 && words[0] == "-ca":
		block := pem.Block{Type: "CERTIFICATE", Bytes: trusted().certificate.Raw}
		check(pem.Encode(os.Stdout, &block))
	case len(words) == 1:
		check(command(words[0]))
	case len(words) == 2 && words[0] == "-serve":
		check(obey(words[1]))
	default:
		fmt.Fprintln(os.Stderr, "usage: server NAME | server -ca")
		os.Exit(2)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}
