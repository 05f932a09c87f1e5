package main

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// What serves. HTTP and HTTPS: /hostname and / answer its name, /clientip the client's address and port, /healthz "ok"; all
// else is 404. UDP: the same words without the slash; "echo TEXT" answers TEXT. gRPC: the health service, of the server as a whole.
type server struct {
	name string
	// HTTP's answer to everything is 500.
	broken      atomic.Bool
	certificate atomic.Pointer[tls.Certificate]
	health      *health.Server
	// Of what listens; none while the ports are closed.
	closers []func()
}

// Serves, and does what it reads on its standard input until that ends.
func obey(name string) error {
	s := &server{name: name, health: health.NewServer()}
	log.SetOutput(io.Discard)
	// A virtual machine that has just booted has no randomness for a second or two: before it says that it serves.
	if _, err := rand.Read(make([]byte, 1)); err != nil {
		return err
	}
	orders := bufio.NewScanner(os.Stdin)
	for order := "well"; ; order = orders.Text() {
		if err := s.carryOut(order); err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok")
		}
		if !orders.Scan() {
			return orders.Err()
		}
	}
}

func (s *server) carryOut(order string) error {
	switch order {
	case "well":
		s.broken.Store(false)
		s.certificate.Store(own(s.name))
		s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
		return s.open()
	case "http-500":
		s.broken.Store(true)
	case "certificate-of-a-stranger":
		s.certificate.Store(strangers(s.name))
	case "certificate-of-another-name":
		s.certificate.Store(anothers())
	case "grpc-not-serving":
		s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	case "close":
		s.close()
	default:
		return fmt.Errorf("no such order: %q", order)
	}
	return nil
}

// Opens the ports, unless they are open.
func (s *server) open() error {
	if s.closers != nil {
		return nil
	}
	for _, open := range []func() (func(), error){s.openHTTP, s.openHTTPS, s.openGRPC, s.openUDP} {
		closer, err := open()
		if err != nil {
			s.close()
			return err
		}
		s.closers = append(s.closers, closer)
	}
	return nil
}

// Closes the ports, and all connections.
func (s *server) close() {
	for _, closer := range s.closers {
		closer()
	}
	s.closers = nil
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp", fmt.Sprintf(":%d", port))
}

func (s *server) openHTTP() (func(), error) {
	listener, err := listen(httpPort)
	if err != nil {
		return nil, err
	}
	web := &http.Server{Handler: s}
	go web.Serve(listener)
	return func() { web.Close() }, nil
}

func (s *server) openHTTPS() (func(), error) {
	listener, err := listen(httpsPort)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return s.certificate.Load(), nil
	}}
	web := &http.Server{Handler: s, TLSConfig: config}
	go web.ServeTLS(listener, "", "")
	return func() { web.Close() }, nil
}

func (s *server) openGRPC() (func(), error) {
	listener, err := listen(grpcPort)
	if err != nil {
		return nil, err
	}
	calls := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(calls, s.health)
	go calls.Serve(listener)
	return calls.Stop, nil
}

func (s *server) openUDP() (func(), error) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{Port: udpPort})
	if err != nil {
		return nil, err
	}
	go s.serveUDP(socket)
	return func() { socket.Close() }, nil
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.broken.Load() {
		http.Error(w, "as it was told", http.StatusInternalServerError)
		return
	}
	text, known := s.answer(strings.TrimPrefix(r.URL.Path, "/"), r.RemoteAddr)
	if !known {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, text)
}

func (s *server) serveUDP(socket *net.UDPConn) {
	buffer := make([]byte, 512)
	for {
		length, peer, err := socket.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		question, _, _ := strings.Cut(string(buffer[:length]), "\n")
		client := netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
		if text, known := s.answer(strings.TrimRight(question, "\r"), client.String()); known {
			socket.WriteToUDPAddrPort([]byte(text), peer)
		}
	}
}

// The answer to a question, if there is one.
func (s *server) answer(question, client string) (string, bool) {
	switch question {
	case "hostname", "":
		return s.name, true
	case "clientip":
		return client, true
	case "healthz":
		return "ok", true
	}
	return strings.CutPrefix(question, "echo ")
}
