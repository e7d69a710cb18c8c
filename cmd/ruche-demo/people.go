package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
)

const (
	textMin      = 500 // characters that make a user a device
	newcomerEach = 4   // every fourth device is a newcomer
	lineMax      = 1 << 20
	usersMax     = 1 << 30 // bytes of a users' file
)

// person is one user and its records in order.
type person struct {
	Name     string
	Records  []string
	Chars    int
	Newcomer bool
}

// readPeople reads JSON lines {"user","text"} and picks the n users with the most text, ties by name. Every fourth is a
// newcomer.
func readPeople(r io.Reader, n int) ([]person, error) {
	by := map[string]*person{}
	seen := map[[2]string]bool{} // a journal keeps one of equal texts, and so do we
	sc := bufio.NewScanner(io.LimitReader(r, usersMax))
	sc.Buffer(make([]byte, 64<<10), lineMax)
	line := 0
	for sc.Scan() {
		line++
		if len(sc.Bytes()) == 0 {
			continue
		}
		var rec struct{ User, Text string }
		if err := json.Unmarshal(sc.Bytes(), &rec); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if rec.User == "" || rec.Text == "" {
			return nil, fmt.Errorf("line %d: want {\"user\": …, \"text\": …}, neither empty", line)
		}
		p := by[rec.User]
		if p == nil {
			p = &person{Name: rec.User}
			by[rec.User] = p
		}
		if seen[[2]string{rec.User, rec.Text}] {
			continue
		}
		seen[[2]string{rec.User, rec.Text}] = true
		p.Records = append(p.Records, rec.Text)
		p.Chars += len([]rune(rec.Text))
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", line+1, err)
	}
	var all []person
	for _, p := range by {
		if p.Chars >= textMin {
			all = append(all, *p)
		}
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Chars != all[j].Chars {
			return all[i].Chars > all[j].Chars
		}
		return all[i].Name < all[j].Name
	})
	if len(all) < n {
		return nil, fmt.Errorf("%d of %d users have at least %d characters; %d devices need as many", len(all), len(by), textMin, n)
	}
	all = all[:n]
	for i := range all {
		all[i].Newcomer = (i+1)%newcomerEach == 0
	}
	return all, nil
}

func openPeople(path string, n int) ([]person, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	people, err := readPeople(f, n)
	if err != nil {
		return nil, fmt.Errorf("users file %s: %w", path, err)
	}
	return people, nil
}
