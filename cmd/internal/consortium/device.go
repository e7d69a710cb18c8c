package consortium

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Enrol gives a device folder, made by `ruche-node init`, a certificate: a token of the authority, then `ruche-node join`.
func (c *Consortium) Enrol(ctx context.Context, dir string, authority int) error {
	out, err := Command(ctx, c.Programs.Coordinator, "--dir", c.Dirs[authority], "--format", "json", "token")
	if err != nil {
		return err
	}
	var token struct {
		Data struct {
			Tokens []string `json:"tokens"`
		} `json:"data"`
	}
	if err := json.Unmarshal(out, &token); err != nil || len(token.Data.Tokens) != 1 {
		return fmt.Errorf("ruche-coordinator token printed %.80q", out)
	}
	_, err = Command(ctx, c.Programs.Node, "--dir", dir, "join", "--member", c.Charter.Members[authority].DeviceURL, "--token", token.Data.Tokens[0], c.CharterPath)
	return err
}

// Encoded is what a device folder kept in clear of its contribution to a round: demo charters only.
func Encoded(dir string, round label.Hash, lanes int) ([]uint32, error) {
	b, err := os.ReadFile(filepath.Join(dir, "encoded", round.String()))
	if err != nil {
		return nil, err
	}
	return committee.ParseVector(b, lanes)
}

// PlainSum adds the vectors that the contributors of a round kept in clear, without any mask.
func PlainSum(lanes int, contributors [][]byte, encoded func(device label.Hash) ([]uint32, error)) ([]uint32, error) {
	if len(contributors) == 0 {
		return nil, errors.New("the record names no contributors")
	}
	sum := make([]uint32, lanes)
	for _, c := range contributors {
		h, err := label.HashFromBytes(c)
		if err != nil {
			return nil, err
		}
		v, err := encoded(h)
		if err != nil {
			return nil, fmt.Errorf("contributor %s: %w", h, err)
		}
		if err := committee.AddVector(sum, v); err != nil {
			return nil, err
		}
	}
	return sum, nil
}
