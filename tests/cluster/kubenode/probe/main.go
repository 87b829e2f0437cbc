// Command probe is what the test cluster's own tests run in pods: it listens, and it dials.
//
//	probe listen ADDRESS            answers every connection with one line
//	probe dial ADDRESS              prints that line; fails when it cannot connect within two seconds
//	probe write FILE TEXT           creates a file
//	probe read FILE                 prints it
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "listen":
		return listen(args[1])
	case len(args) == 2 && args[0] == "dial":
		return dial(args[1])
	case len(args) == 3 && args[0] == "write":
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	case len(args) == 2 && args[0] == "read":
		text, err := os.ReadFile(args[1])
		fmt.Print(string(text))
		return err
	}
	return fmt.Errorf("usage: probe listen|dial ADDRESS, probe write FILE TEXT, probe read FILE")
}

func listen(address string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM) // the first process of a container ignores signals that it does not handle
	go func() { <-stop; os.Exit(0) }()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintln(connection, "hello from", connection.LocalAddr())
		connection.Close()
	}
}

func dial(address string) error {
	connection, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = io.Copy(os.Stdout, connection)
	return err
}
