// pod is what the containers of the cluster tests run, as one static binary in an otherwise empty image:
//
//	pod pause                hold a pod's namespaces (the sandbox image of the nodes)
//	pod serve ADDRESS        answer every HTTP request with the host's name
//	pod get URL [SECONDS]    print the answer to a GET request
//	pod lookup NAME          print the addresses of a name
//	pod eat MIB              fill so much memory, then wait
//	pod environment NAME     print a variable of the environment
//
// Under the name ttsfleet-runtime it stands in for the runtime: ready at once, without a model. Under the name sleep it
// waits, as a preStop hook asks.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "ttsfleet-runtime":
		if len(os.Args) > 1 && os.Args[1] == "serve" {
			go serve(":8081")
			serve(":8080")
		}
		return
	case "sleep":
		seconds, _ := strconv.Atoi(os.Args[len(os.Args)-1])
		time.Sleep(time.Duration(seconds) * time.Second)
		return
	}
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: pod pause | serve ADDRESS | get URL [SECONDS] | lookup NAME | eat MIB | environment NAME"))
	}
	arguments := append(os.Args[2:], "", "")
	switch os.Args[1] {
	case "pause":
		pause()
	case "serve":
		serve(arguments[0])
	case "get":
		get(arguments[0], arguments[1])
	case "lookup":
		lookup(arguments[0])
	case "eat":
		eat(arguments[0])
	case "environment":
		fmt.Println(os.Getenv(arguments[0]))
	default:
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}

// pause waits for its end and reaps what containers that share its process namespace leave.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

func serve(address string) {
	name, err := os.Hostname()
	if err != nil {
		fail(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	handler := func(answer http.ResponseWriter, request *http.Request) { fmt.Fprintln(answer, name) }
	fmt.Println("listening on", address)
	fail(http.ListenAndServe(address, http.HandlerFunc(handler)))
}

func get(url string, seconds string) {
	limit, err := strconv.Atoi(seconds)
	if err != nil {
		limit = 5
	}
	client := http.Client{Timeout: time.Duration(limit) * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		fail(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		fail(err)
	}
}

func lookup(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		fail(err)
	}
	fmt.Println(strings.Join(addresses, " "))
}

func eat(mebibytes string) {
	count, err := strconv.Atoi(mebibytes)
	if err != nil {
		fail(err)
	}
	var held [][]byte
	for range count {
		block := make([]byte, 1<<20)
		for page := 0; page < len(block); page += 4096 {
			block[page] = 1
		}
		held = append(held, block)
	}
	fmt.Println("holding", len(held), "MiB")
	pause()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
