package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// The process that serves, as the one that commands it sees it.
type servant struct {
	process *exec.Cmd
	orders  io.Writer
	answers *bufio.Reader
	// Closed when it has ended.
	ended chan struct{}
}

// Who commands: one order after the other.
type commander struct {
	name    string
	mutex   sync.Mutex
	servant *servant
}

// Serves by another process, and listens to orders until it ends.
func command(name string) error {
	c := &commander{name: name}
	if err := c.carryOut("well"); err != nil {
		return err
	}
	return http.ListenAndServe(fmt.Sprintf(":%d", controlPort), c)
}

func (c *commander) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "orders are posted", http.StatusMethodNotAllowed)
		return
	}
	if err := c.carryOut(strings.TrimPrefix(r.URL.Path, "/")); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	io.WriteString(w, "done")
}

// Returns once it is so: what was to be killed is dead, what was to be well serves.
func (c *commander) carryOut(order string) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if order == "well" && c.servant == nil {
		started, err := start(c.name)
		c.servant = started
		return err
	}
	if c.servant == nil {
		return errors.New("it is dead: only \"well\" helps")
	}
	switch order {
	case "kill":
		killed := c.servant
		c.servant = nil
		return killed.kill()
	case "stop":
		return c.servant.process.Process.Signal(syscall.SIGSTOP)
	case "well":
		if err := c.servant.process.Process.Signal(syscall.SIGCONT); err != nil {
			return err
		}
	}
	return c.servant.tell(order)
}

func start(name string) (*servant, error) {
	process := exec.Command("/proc/self/exe", "-serve", name)
	process.Stderr = os.Stderr
	orders, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	s := &servant{process, orders, bufio.NewReader(answers), make(chan struct{})}
	if err := s.heard(); err != nil {
		return nil, err
	}
	go func() {
		process.Process.Wait()
		close(s.ended)
	}()
	fmt.Fprintln(os.Stderr, name, "serves")
	return s, nil
}

func (s *servant) kill() error {
	err := s.process.Process.Kill()
	<-s.ended
	return err
}

func (s *servant) tell(order string) error {
	if _, err := fmt.Fprintln(s.orders, order); err != nil {
		return err
	}
	return s.heard()
}

// Waits for its answer: "ok", or what is wrong.
func (s *servant) heard() error {
	answer, err := s.answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the process that serves has ended: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return errors.New(answer)
	}
	return nil
}
