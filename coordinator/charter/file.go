package charter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Signature is one member's composite signature over a charter's body.
type Signature struct {
	Member    int    `json:"member"`
	Signature []byte `json:"signature"`
}

// chartersFile is charter.json. The body is base64: what is signed is the exact bytes.
type charterFile struct {
	Charter    []byte      `json:"charter"`
	Signatures []Signature `json:"signatures"`
}

// Options are what Draft needs besides the cards. Protocol, version, n and q follow from the rest.
type Options struct {
	Consortium        string
	Demo              bool
	F                 int
	AuthoritiesFaulty int // unless Demo, it must be F
	MinContributors   int
	Tasks             []Task
	Timing            Timing
}

// Draft makes the body that all members sign. The order of cards is the numbering of the members.
func Draft(cards []Card, o Options) ([]byte, error) {
	c := &Charter{Protocol: label.Version, Consortium: o.Consortium, Version: Version, Demo: o.Demo,
		N: len(cards), F: o.F, Q: Quorum(len(cards), o.F), AuthoritiesFaulty: o.AuthoritiesFaulty,
		MinContributors: o.MinContributors, Members: cards, Tasks: o.Tasks, Timing: o.Timing}
	if c.Timing.Profile == "" {
		c.Timing.Profile = ProfileWAN
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	body, err := c.marshal()
	if err != nil {
		return nil, err
	}
	if _, err := Parse(body); err != nil {
		return nil, err
	}
	return body, nil
}

// Sign signs the body for the member whose identity key is key.
func Sign(body []byte, key *identity.Member) (Signature, error) {
	c, err := Parse(body)
	if err != nil {
		return Signature{}, err
	}
	i, ok := c.Member(key.Public())
	if !ok {
		return Signature{}, errors.New("charter: the signing key is no member's identity")
	}
	return Signature{Member: i, Signature: key.Sign(label.StmtCharter, body)}, nil
}

// Assemble verifies that all n members signed body, each once, and returns the content of charter.json.
func Assemble(body []byte, signatures []Signature) ([]byte, error) {
	c, err := Parse(body)
	if err != nil {
		return nil, err
	}
	sorted := slices.Clone(signatures)
	slices.SortFunc(sorted, func(a, b Signature) int { return a.Member - b.Member })
	if err := c.verify(sorted); err != nil {
		return nil, err
	}
	return marshalFile(charterFile{Charter: body, Signatures: sorted})
}

// ParseSignature reads what MarshalSignature wrote: how a signature travels to the one who assembles.
func ParseSignature(data []byte) (Signature, error) {
	var s Signature
	if len(data) > CardBytesMax {
		return s, fmt.Errorf("charter signature has %d bytes, limit %d", len(data), CardBytesMax)
	}
	if err := unmarshalStrict(data, &s); err != nil {
		return s, fmt.Errorf("charter signature: %w", err)
	}
	return s, nil
}

// MarshalSignature writes one member's signature as a file of its own.
func MarshalSignature(s Signature) ([]byte, error) { return marshalFile(s) }

// ParseFile reads the content of charter.json, verified by all n members.
func ParseFile(data []byte) (*Charter, error) {
	if len(data) > FileBytesMax {
		return nil, fmt.Errorf("charter file has %d bytes, limit %d", len(data), FileBytesMax)
	}
	var f charterFile
	if err := unmarshalStrict(data, &f); err != nil {
		return nil, fmt.Errorf("charter file: %w", err)
	}
	c, err := Parse(f.Charter)
	if err != nil {
		return nil, err
	}
	if err := c.verify(f.Signatures); err != nil {
		return nil, err
	}
	return c, nil
}

// Load reads charter.json at path, verified by all n members.
func Load(path string) (*Charter, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, FileBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	c, err := ParseFile(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// verify wants exactly one valid signature per member, in member order.
func (c *Charter) verify(signatures []Signature) error {
	for i := range c.Members {
		if i >= len(signatures) || signatures[i].Member != i {
			return fmt.Errorf("charter: signature of member %d (%s) is missing, twice or out of order", i, c.Members[i].Name)
		}
		if err := c.Members[i].Identity.Verify(label.StmtCharter, c.body, signatures[i].Signature); err != nil {
			return fmt.Errorf("charter: member %d (%s): %w", i, c.Members[i].Name, err)
		}
	}
	if len(signatures) != c.N {
		return fmt.Errorf("charter: %d signatures, %d members", len(signatures), c.N)
	}
	return nil
}

func marshalFile(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	return append(b, '\n'), nil
}
