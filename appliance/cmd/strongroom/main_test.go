package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"strongroom.example/appliance/base/program"
)

// The test runs itself as a program that never ends by itself.
func TestMain(m *testing.M) {
	if os.Getenv("STRONGROOM_TEST_HANG") != "" {
		ctx, stop := program.Interruptible(context.Background())
		context.AfterFunc(ctx, stop) // as main has it
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("asked to end")
		select {}
	}
	os.Exit(m.Run())
}

func TestSecondInterruptKills(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{"STRONGROOM_TEST_HANG=1"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	for _, want := range []string{"ready", "asked to end"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it says %q, want %q", lines.Text(), want)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// The handler goes a moment after the context has ended.
	again, late := time.NewTicker(20*time.Millisecond), time.After(3*time.Minute)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
		case <-late:
			t.Fatal("it goes on after more than two interrupts")
		case <-ended:
			if s := cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGINT {
				t.Fatalf("it ended as %v, want death by the interrupt", cmd.ProcessState)
			}
			return
		}
	}
}
