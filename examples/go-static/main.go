package main

import (
	"fmt"
	"runtime"

	"github.com/google/uuid"
)

var version = "unset"

func main() {
	name := uuid.NewSHA1(uuid.NameSpaceDNS, []byte("example.org"))
	fmt.Printf("Hello from Go (%s) on %s: example.org is %s.\n", version, runtime.GOOS, name)
}
