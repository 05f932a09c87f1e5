package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"time"
)

// An authority follows from its phrase alone: everybody who knows that has its key. So each server makes its own certificate,
// whoever asks knows beforehand what will have signed it, and nobody else may ever trust it.
type authority struct {
	key         ed25519.PrivateKey
	certificate *x509.Certificate
}

// Whom those trust who ask.
func trusted() authority { return newAuthority("ycloud lab: anybody has this key") }

// What it shows when all is well: of its names and its addresses.
func own(name string) *tls.Certificate {
	return trusted().sign([]string{name, serverName}, addresses())
}

// As its own, but nobody trusts who signed it.
func strangers(name string) *tls.Certificate {
	return newAuthority("ycloud lab: a stranger").sign([]string{name, serverName}, addresses())
}

// Of a trusted authority, for another server.
func anothers() *tls.Certificate { return trusted().sign([]string{"somebody-else"}, nil) }

// The name that all of them have in common.
const serverName = "server.lab"

func keyOf(phrase string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(phrase))
	return ed25519.NewKeyFromSeed(seed[:])
}

func template(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		// The clock of a virtual machine is not looked at.
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
		BasicConstraintsValid: true,
	}
}

func newAuthority(phrase string) authority {
	key := keyOf(phrase)
	self := template(1, phrase)
	self.IsCA = true
	self.KeyUsage = x509.KeyUsageCertSign
	made, err := x509.CreateCertificate(rand.Reader, self, self, key.Public(), key)
	check(err)
	certificate, err := x509.ParseCertificate(made)
	check(err)
	return authority{key, certificate}
}

func (a authority) sign(names []string, addresses []net.IP) *tls.Certificate {
	key := keyOf(names[0])
	leaf := template(2, names[0])
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf.DNSNames = names
	leaf.IPAddresses = addresses
	made, err := x509.CreateCertificate(rand.Reader, leaf, a.certificate, key.Public(), a.key)
	check(err)
	return &tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
}

// Those of this machine.
func addresses() []net.IP {
	var found []net.IP
	all, err := net.InterfaceAddrs()
	check(err)
	for _, one := range all {
		if network, is := one.(*net.IPNet); is {
			found = append(found, network.IP)
		}
	}
	return found
}
