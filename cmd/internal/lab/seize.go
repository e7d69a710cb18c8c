package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// Loot is what a thief has who takes members' disks away, and who kept every upload that passed by. The disks hold the
// long-term keys too. The thief knows the programs, and neither times nor names of files mean anything to it.
type Loot struct {
	charter *charter.Charter
	members []int             // whose disks
	files   map[string][]byte // by path; of equal ones one
	log     [][]byte
	uploads []upload
}

// upload is a recorded contribution and the round that it was sent to.
type upload struct {
	round   committee.Round
	header  *statement.Header
	name    label.Hash // H(header)
	body    []byte
	boxes   [][]byte
	y       []uint32
	yBytes  []byte
	voteKey map[int]identity.Public
}

// Seize takes the disks of some members.
func (f *Federation) Seize(members ...int) (*Loot, error) {
	f.mu.Lock()
	log := slices.Clone(f.views[0].entries)
	f.mu.Unlock()
	l := &Loot{charter: f.Charter, members: members, files: map[string][]byte{}, log: log}
	seen := map[label.Hash]bool{}
	for _, j := range members {
		err := filepath.WalkDir(f.Seats[j].Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if h := label.Sum(label.TagCommand, b); err == nil && !seen[h] {
				seen[h], l.files[path] = true, b
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return l, l.readUploads(f.Taped())
}

// readUploads takes one whole copy of each recorded contribution.
func (l *Loot) readUploads(taped []*Taped) error {
	rounds := map[label.Hash]*statement.RoundConfig{}
	for _, data := range l.log {
		if cmd, err := round.ParseCommand(data); err == nil {
			if rc, err := statement.ParseRoundConfig(cmd.GetPropose()); err == nil {
				rounds[rc.ID()] = rc
			}
		}
	}
	seen := map[label.Hash]bool{}
	for _, t := range taped {
		body := t.Open.GetHeader().GetBody()
		h, err := statement.ParseHeader(body)
		if err != nil || rounds[h.Round] == nil || seen[h.Hash()] {
			continue
		}
		rc := rounds[h.Round]
		y, err := committee.ParseVector(t.Y, int(rc.Len))
		if err != nil {
			continue // broken off; a later one is whole
		}
		seen[h.Hash()] = true
		u := upload{round: rc.Committee(l.charter), header: h, name: h.Hash(), body: body, boxes: t.Open.GetBoxes(), y: y, yBytes: t.Y, voteKey: map[int]identity.Public{}}
		for _, m := range rc.Listed().Members() {
			k, _ := rc.Package(m)
			u.voteKey[m] = k.VoteKey
		}
		l.uploads = append(l.uploads, u)
	}
	if len(l.uploads) == 0 {
		return errors.New("no upload was recorded")
	}
	return nil
}

// Opened is what a thief gets out of its loot.
type Opened struct {
	SealKeys int // private keys that uploads were sealed to
	VoteKeys int // private keys that could vote in their rounds
	Boxes    int
	Seeds    int                     // that lie open on a disk, known by their commitments
	Vectors  map[label.Hash][]uint32 // what devices hid, by header
	Left     []string                // files that hold a header, a box or a y of them, whole or the beginning of it
}

// Open tries every 32 bytes of every file, at every place, as every key that the disks' owners could have and as every
// seed, and on every upload whatever it finds. The members' public papers are left out.
func (l *Loot) Open() *Opened {
	out := &Opened{Vectors: map[label.Hash][]uint32{}}
	keys, masks := map[string]*seal.PrivateKey{}, make([]committee.TSums, len(l.uploads))
	wanted, votes := map[string]bool{}, map[string]bool{}
	for i, u := range l.uploads {
		masks[i] = committee.TSums{}
		for _, r := range u.round.Listed {
			if slices.Contains(l.members, r.Member) {
				wanted[string(r.SealKey)] = true
				votes[string(u.voteKey[r.Member])] = true
			}
		}
	}
	tried := map[[32]byte]bool{}
	smallFirst := slices.SortedFunc(maps.Keys(l.files), func(a, b string) int { return len(l.files[a]) - len(l.files[b]) })
	for _, path := range smallFirst {
		b := l.files[path]
		if name := filepath.Base(path); name == "charter.json" || name == "card.json" {
			continue
		}
		for at := 0; at+32 <= len(b); at++ {
			window := [32]byte(b[at:])
			if tried[window] {
				continue
			}
			tried[window] = true
			if out.VoteKeys < len(votes) { // it has not all of them
				if k, err := identity.ParseKey(window[:]); err == nil && votes[string(k.Public())] {
					out.VoteKeys++
				}
			}
			for i := range l.uploads {
				out.Seeds += l.uploads[i].trySeed(window, masks[i])
			}
			if len(keys) < len(wanted) {
				if k, err := seal.ParsePrivateKey(window[:]); err == nil && wanted[string(k.Public())] {
					keys[string(k.Public())] = k
				}
			}
		}
	}
	out.SealKeys = len(keys)
	for i, u := range l.uploads {
		out.Boxes += u.openBoxes(keys, masks[i])
		if x, err := committee.Unmask(u.round, u.y, masks[i]); err == nil {
			out.Vectors[u.name] = x
		}
		out.Left = append(out.Left, l.left(u)...)
	}
	return out
}

// openBoxes opens what the keys open and adds the masks that it did not have.
func (u *upload) openBoxes(keys map[string]*seal.PrivateKey, masks committee.TSums) (opened int) {
	for i, r := range u.round.Listed {
		key := keys[string(r.SealKey)]
		if key == nil {
			continue
		}
		shares, err := committee.OpenBox(u.round, r.Member, r.Epoch, key, u.header.Device, u.header.Nonce, u.header.Commitments, u.boxes[i], u.header.AAD())
		if err != nil {
			continue
		}
		opened++
		own := committee.TSums{}
		if err := shares.AddTo(own); err != nil {
			continue
		}
		for t, v := range own {
			masks[t] = v
		}
	}
	return opened
}

// trySeed compares 32 bytes with the commitments: H(RC) ‖ device ‖ nonce ‖ T ‖ seed (SA 2.3, device, step 3).
func (u *upload) trySeed(window [32]byte, masks committee.TSums) (found int) {
	for i, t := range committee.Subsets(u.round.N, u.round.F) {
		context := slices.Concat(u.round.ID[:], u.header.Device[:], u.header.Nonce[:])
		context = binary.BigEndian.AppendUint32(context, uint32(t))
		if label.Sum(label.TagCommit, context, window[:]) != u.header.Commitments[i] {
			continue
		}
		if s, err := prg.SeedFromBytes(window[:]); err == nil {
			masks[t] = make([]uint32, u.round.Len)
			prg.Add(masks[t], s, label.PurposeMask, context)
			found++
		}
	}
	return found
}

// left lists the files, and the log as "log", in which something of an upload stands.
func (l *Loot) left(u upload) (out []string) {
	parts := [][]byte{u.body, u.yBytes[:min(64, len(u.yBytes))]}
	for _, b := range u.boxes {
		parts = append(parts, b[:64])
	}
	holds := func(b []byte) bool {
		return slices.ContainsFunc(parts, func(p []byte) bool { return bytes.Contains(b, p) })
	}
	for path, b := range l.files {
		if holds(b) {
			out = append(out, path)
		}
	}
	if slices.ContainsFunc(l.log, holds) {
		out = append(out, "log")
	}
	return out
}
