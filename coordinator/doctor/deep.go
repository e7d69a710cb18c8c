package doctor

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// Reading is what a deep examination read, file by file. Entries of the log, snapshots, epochs, keys and alarms are read
// by every examination, and have findings of their own.
type Reading struct {
	Files   int   `json:"files"`
	Bytes   int64 `json:"bytes"`
	Damaged int   `json:"damaged"`
	Foreign int   `json:"foreign"` // nothing of ruche has these names here
	Left    int   `json:"left"`    // over from something that broke off, or set aside
}

// Progress is told what is being read.
type Progress func(file string, read, total int64)

// Deep is Examine that also reads every file which rounds left, compares it with its hash, checksum or signature, and
// says what becomes of each that is damaged or foreign.
func Deep(dir string, now time.Time, told Progress) (*Examination, error) {
	return look(dir, now, told)
}

// file is one to be read.
type file struct {
	path  string // relative, with slashes
	parts []string
	size  int64
}

// reader reads the files of one examination.
type reader struct {
	x     *Examination
	told  Progress
	total int64
}

func (x *Examination) deep(told Progress) {
	if x.Running {
		x.find(Note, "files", "not_read", "its files change while one reads them", "stop the member first", "what rounds left is not read while a member runs")
		return
	}
	x.Read = &Reading{}
	r := &reader{x: x, told: told}
	files, err := r.list()
	if err != nil {
		x.find(Problem, "files", "unreadable", "not all of the folder was read", "run as the user who owns the folder", "%v", err)
	}
	for _, f := range files {
		r.told(f.path, x.Read.Bytes, r.total)
		r.look(f)
		x.Read.Files++
		x.Read.Bytes += f.size
	}
	x.find(OK, "files", "read", "", "", "%s, %d bytes: %d damaged, %d foreign, %d left over", count(x.Read.Files, "file"), x.Read.Bytes, x.Read.Damaged, x.Read.Foreign, x.Read.Left)
}

// list is every file in the folder but those of keys, of the log's database and of snapshots, which are read elsewhere.
func (r *reader) list() (out []file, err error) {
	err = filepath.WalkDir(r.x.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(r.x.Dir, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case e.IsDir() && (rel == "keys" || rel == "raft/log/log" || rel == "raft/snapshots" || strings.HasPrefix(rel, "raft.set-aside-") || strings.HasPrefix(e.Name(), ".gone-")):
			if strings.Contains(e.Name(), "set-aside") {
				r.left(rel, "a log that `ruche-coordinator rejoin` set aside", "it stays, as evidence; it can be removed, and must never come back")
			} else if strings.HasPrefix(e.Name(), ".gone-") {
				r.left(rel, "an ended round that was being removed", "the next start removes it")
			}
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		out = append(out, file{rel, strings.Split(rel, "/"), info.Size()})
		r.total += info.Size()
		return nil
	})
	return out, err
}

func (r *reader) left(path, what, becomes string) {
	r.x.find(Note, "files", "left_over", becomes, "", "%s: %s", path, what)
	r.x.Read.Left++
}

func (r *reader) foreign(f file) {
	r.x.find(Note, "files", "foreign", "nothing reads it, nothing removes it", "it can be removed", "%s: nothing of ruche has this name here", f.path)
	r.x.Read.Foreign++
}

func (r *reader) damaged(f file, level Level, kind, becomes, do string, err error) {
	r.x.find(level, "files", "damaged", becomes, do, "%s: %s: %v", f.path, kind, err)
	r.x.Read.Damaged++
}

// plain are the files that every examination looks at, or that hold nothing.
var plain = map[string]bool{"card.json": true, "charter.json": true, "listen.json": true, "status.json": true, "alarms": true, "alarms.lock": true, "lock": true,
	"blobs/y/lock": true, "sums/lock": true, "results/lock": true, "raft/log/guard": true}

func (r *reader) look(f file) {
	name := f.parts[len(f.parts)-1]
	switch {
	case plain[f.path]:
	case strings.HasPrefix(name, ".") && strings.Contains(name, ".tmp-"):
		becomes := "the next start removes it, or it can be removed"
		if f.parts[0] == "tokens" { // where a token may be being written now
			becomes = "it can be removed"
		}
		r.left(f.path, "a write that broke off", becomes)
	case f.path == "alarms.damaged":
		r.left(f.path, "alarms that were set aside as damaged", "it stays; it can be removed")
	case f.path == "raft/store":
		if err := coordinator.CheckStore(r.x.Dir); err != nil {
			c := coordinator.CauseOf(coordinator.ErrStoreUnknown, r.x.members())
			r.damaged(f, Problem, "the id of the log's store", "the member does not start", c.Do, err)
		}
	case len(f.parts) == 3 && f.parts[0] == "epochs" && (name == "keys" || name == "votes" || name == "votes.lock"):
	case len(f.parts) == 4 && f.parts[0] == "blobs" && (f.parts[1] == "y" || f.parts[1] == "heads"):
		r.contribution(f)
	case len(f.parts) == 3 && f.parts[0] == "sums":
		r.blob(f, f.parts[1], "a sum", "it is set aside when it is read, and folded again", label.TagSum, label.TagTSum)
	case len(f.parts) == 3 && f.parts[0] == "results" && f.parts[1] == "models":
		r.blob(f, "", "a state", r.ofState(name), label.TagModel)
	case len(f.parts) == 2 && (f.parts[0] == "receipts" || f.parts[0] == "configs" || f.parts[0] == "derived" || f.parts[0] == "tokens"):
		r.note(f)
	default:
		r.foreign(f)
	}
}

// contribution reads a y or a head.
func (r *reader) contribution(f file) {
	const again = "it is dropped when it is read, and pulled again from the other members"
	if f.parts[1] == "y" {
		r.blob(f, f.parts[2], "a contribution's y", again, label.TagContribution)
		return
	}
	id, err := label.ParseHash(f.parts[2])
	header, herr := label.ParseHash(f.parts[3])
	if err != nil || herr != nil {
		r.foreign(f)
		return
	}
	b, err := os.ReadFile(r.at(f))
	var c *intake.Contribution
	if err == nil {
		c, err = intake.ParseHead(header, b)
	}
	if err == nil && c.Header.Round != id {
		err = errors.New("it is of another round")
	}
	if err == nil && r.x.state != nil {
		if _, cert, ok := r.x.state.Device(c.Header.Device); ok {
			err = statement.VerifyContribution(cert.Public, id, header, c.Signature)
		}
	}
	if err != nil {
		r.damaged(f, Warning, "a contribution's head", r.ofRound(f.parts[2], again), "", err)
	}
}

// blob compares a file with the hash that it is named by. What becomes of it depends on its round, if it has one.
func (r *reader) blob(f file, id, kind, becomes string, tags ...string) {
	name := f.parts[len(f.parts)-1]
	whole, part := strings.CutSuffix(name, ".part")
	if bad, ok := strings.CutSuffix(name, ".bad"); ok {
		whole = bad
	}
	want, err := label.ParseHash(whole)
	if err == nil && id != "" {
		_, err = label.ParseHash(id)
	}
	switch {
	case err != nil:
		r.foreign(f)
		return
	case part:
		r.left(f.path, kind+" that was being written", "the member removes it an hour after it was written to last")
		return
	case whole != name:
		becomes := "it stays until another one is set aside; it can be removed"
		if id != "" {
			becomes = r.ofRound(id, "it is removed with its round; it can be removed")
		}
		r.left(f.path, kind+" that was set aside as damaged", becomes)
		return
	}
	if id != "" {
		becomes = r.ofRound(id, becomes)
	}
	if err := r.hashed(f, want, tags); err != nil {
		r.damaged(f, Warning, kind, becomes, "", err)
	}
}

// hashed reads a file to its end and compares its digest under any of the tags.
func (r *reader) hashed(f file, want label.Hash, tags []string) error {
	in, err := os.Open(r.at(f))
	if err != nil {
		return err
	}
	defer in.Close()
	var sums []hash.Hash
	for _, tag := range tags {
		sums = append(sums, label.New(tag))
	}
	buf := make([]byte, 1<<20)
	for done := int64(0); ; {
		n, err := in.Read(buf)
		for _, s := range sums {
			s.Write(buf[:n])
		}
		done += int64(n)
		r.told(f.path, r.x.Read.Bytes+done, r.total)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	for _, s := range sums {
		if label.Hash(s.Sum(nil)) == want {
			return nil
		}
	}
	return errors.New("its content does not have the hash that it is named by")
}

// note reads a small file whose name says what it is of.
func (r *reader) note(f file) {
	name := f.parts[1]
	base, _ := strings.CutSuffix(name, ".damaged")
	base, lock := strings.CutSuffix(base, ".lock")
	if _, err := label.ParseHash(base); err != nil || base != name && f.parts[0] != "receipts" {
		r.foreign(f)
		return
	}
	path := r.at(f)
	switch f.parts[0] {
	case "receipts":
		if base != name {
			if !lock {
				r.left(f.path, "receipts that were set aside as damaged", "it stays; it can be removed")
			}
			return
		}
		if err := coordinator.CheckReceipts(path); err != nil {
			r.damaged(f, Warning, "what this member signed receipts for", "the next start sets it aside and raises an alarm: an older snapshot of that round is no longer recognised as a lie", "", err)
		}
	case "configs":
		b, err := durable.ReadChecked(path)
		var seq uint64
		var id string
		if err == nil {
			_, err = fmt.Sscanf(string(b), "%d %s\n", &seq, &id)
		}
		if err != nil {
			r.damaged(f, Problem, "the last round that this member signed for a task", "the member signs no round of that task",
				"see that no round of it is being proposed (`ruche rounds list`), then remove the file", err)
		}
	case "derived":
		b, err := durable.ReadChecked(path)
		if err == nil {
			_, err = label.ParseHash(strings.TrimSuffix(string(b), "\n"))
		}
		if err != nil {
			r.damaged(f, Warning, "the state that this member derived for a round", "it is removed when it is read: the member then believes f+1 others, as one that was away", "", err)
		}
	case "tokens":
		if f.size > 0 {
			r.damaged(f, Warning, "an enrolment token", "the token is taken all the same: its name says all", "issue another and remove this one, if nobody has it yet", errors.New("it is not empty"))
		}
	}
}

func (r *reader) at(f file) string { return filepath.Join(r.x.Dir, filepath.FromSlash(f.path)) }

// ofRound is what becomes of a damaged file of a round: only of one that lives it is still needed.
func (r *reader) ofRound(name, live string) string {
	id, err := label.ParseHash(name)
	if err != nil || r.x.state == nil {
		return "if its round goes on: " + live + "; if not, it is removed with its round"
	}
	v, known := r.x.state.Round(id)
	switch {
	case !known:
		return "the log does not name its round: it is removed after 48 hours"
	case v.Phase.Terminal():
		return "its round has ended: the next start removes it"
	}
	return live
}

// ofState is what becomes of a damaged state.
func (r *reader) ofState(name string) string {
	if r.x.state != nil && r.x.ch != nil {
		for i := range r.x.ch.Tasks {
			if v, ok := r.x.state.Latest(r.x.ch.Tasks[i].ID); ok && v.Result != nil && v.Phase == round.Published && v.Result.Model.String() == name {
				return "it is set aside when it is read, and pulled again from the other members: the next round starts from it"
			}
		}
	}
	return "it is set aside when it is asked for; other members may have it"
}
