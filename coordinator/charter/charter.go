package charter

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ruche-federation/ruche/crypto/label"
)

// Version is the charter format that this package reads.
const Version = 1

// Charter is the verified content of a charter. It is shared and must not be changed after Parse.
type Charter struct {
	Protocol          string `json:"protocol"`           // label.Version
	Consortium        string `json:"consortium"`         // its name
	Version           int    `json:"version"`            // 1
	Demo              bool   `json:"demo"`               // cohorts down to 3 devices, labelled as such wherever it shows
	N                 int    `json:"n"`                  // members
	F                 int    `json:"f"`                  // members that may crash or lie, together
	Q                 int    `json:"q"`                  // ⌊(n+f)/2⌋+1
	AuthoritiesFaulty int    `json:"authorities_faulty"` // f_E: enrolment authorities assumed dishonest
	MinContributors   int    `json:"min_contributors"`   // no task has a floor below it
	Members           []Card `json:"members"`            // in index order: the signed order is the numbering
	Tasks             []Task `json:"tasks"`
	Timing            Timing `json:"timing"`

	body []byte
	hash label.Hash
}

// Timing holds the clocks that all tasks share.
type Timing struct {
	EpochLife Duration `json:"epoch_life"` // from a KeyPackage's nbf to its naf; new rounds list it in its first half
	Slack     Duration `json:"slack"`      // tolerated difference of two members' clocks, and the reserve before naf
	Tick      Duration `json:"tick"`       // the leader stamps the time into the log this often
	Profile   string   `json:"profile"`    // distance between the members: wan, lan or loopback; wan where a charter has none
}

// Profiles: how long members wait for each other before they elect another leader. All run by the charter's, since one
// that waits less than the rest stands for election against a leader that is well.
const (
	ProfileWAN      = "wan"
	ProfileLAN      = "lan"
	ProfileLoopback = "loopback" // one machine that has other work to do: demos only
)

// Duration is a time.Duration written as Go writes it: "90s", "2h45m".
type Duration time.Duration

// D returns the time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Milliseconds returns whole milliseconds, the unit of every time in a statement.
func (d Duration) Milliseconds() int64 { return time.Duration(d).Milliseconds() }

// MarshalText writes Go's form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads Go's form.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %.40q: want a form like 90s or 2h", b)
	}
	*d = Duration(v)
	return nil
}

// Hash is H("charter", body): what KeyPackages, certificates and RoundConfigs are bound to.
func (c *Charter) Hash() label.Hash { return c.hash }

// Body returns a copy of the exact signed bytes.
func (c *Charter) Body() []byte { return append([]byte(nil), c.body...) }

// Task returns the task named id.
func (c *Charter) Task(id string) (*Task, bool) {
	for i := range c.Tasks {
		if c.Tasks[i].ID == id {
			return &c.Tasks[i], true
		}
	}
	return nil, false
}

// Member returns the index of the member whose identity key is public.
func (c *Charter) Member(public []byte) (int, bool) {
	for i := range c.Members {
		if string(c.Members[i].Identity) == string(public) {
			return i, true
		}
	}
	return 0, false
}

// Parse reads a charter's exact body, checks every rule and keeps the bytes. It checks no signature: Load does.
func Parse(body []byte) (*Charter, error) {
	if len(body) > BodyBytesMax {
		return nil, fmt.Errorf("charter has %d bytes, limit %d", len(body), BodyBytesMax)
	}
	c := new(Charter)
	if err := unmarshalStrict(body, c); err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	c.body = append([]byte(nil), body...)
	c.hash = label.Sum(label.TagCharter, c.body)
	return c, nil
}

// marshal gives the body of a charter that nobody signed yet.
func (c *Charter) marshal() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	return append(b, '\n'), nil
}

// Check applies the rules of SA 2.1 and 2.2, naming the first field that breaks one.
func (c *Charter) Check() error {
	switch {
	case c.Protocol != label.Version:
		return fmt.Errorf("protocol is %.40q, this program speaks %q", c.Protocol, label.Version)
	case c.Version != Version:
		return fmt.Errorf("version is %d, this program reads %d", c.Version, Version)
	}
	if err := checkName("consortium", c.Consortium); err != nil {
		return err
	}
	if err := CheckSize(c.N, c.F); err != nil {
		return err
	}
	if q := Quorum(c.N, c.F); c.Q != q {
		return fmt.Errorf("q is %d, for n %d and f %d it is %d", c.Q, c.N, c.F, q)
	}
	if len(c.Members) != c.N {
		return fmt.Errorf("members has %d cards, n is %d", len(c.Members), c.N)
	}
	if c.Demo {
		if c.AuthoritiesFaulty < 0 || c.AuthoritiesFaulty > c.F {
			return fmt.Errorf("authorities_faulty is %d, a demo allows 0 to f (%d)", c.AuthoritiesFaulty, c.F)
		}
	} else if c.AuthoritiesFaulty != c.F {
		return fmt.Errorf("authorities_faulty is %d, it must be f (%d) unless demo is true", c.AuthoritiesFaulty, c.F)
	}
	if floor := c.floor(); c.MinContributors < floor || c.MinContributors > CohortMax {
		return fmt.Errorf("min_contributors is %d, it must lie in [%d, %d]", c.MinContributors, floor, CohortMax)
	}
	if err := c.checkMembers(); err != nil {
		return err
	}
	if err := c.Timing.check(c.Demo); err != nil {
		return err
	}
	if len(c.Tasks) == 0 || len(c.Tasks) > TasksMax {
		return fmt.Errorf("tasks has %d entries, it must have 1 to %d", len(c.Tasks), TasksMax)
	}
	for i := range c.Tasks {
		t := &c.Tasks[i]
		if err := t.check(c); err != nil {
			return fmt.Errorf("tasks[%d] (%.40q): %w", i, t.ID, err)
		}
		for j := range i {
			if c.Tasks[j].ID == t.ID {
				return fmt.Errorf("tasks[%d] and tasks[%d] are both named %q", j, i, t.ID)
			}
		}
	}
	return nil
}

func (c *Charter) floor() int {
	if c.Demo {
		return DemoCohortFloor
	}
	return CohortFloor
}

// checkMembers refuses two members that share a key, a store or an address: then one organisation would count twice.
func (c *Charter) checkMembers() error {
	for i := range c.Members {
		a := &c.Members[i]
		if err := a.Check(); err != nil {
			return fmt.Errorf("members[%d]: %w", i, err)
		}
		for j := range i {
			b := &c.Members[j]
			for _, same := range []struct {
				field string
				equal bool
			}{
				{"name", a.Name == b.Name},
				{"store_id", strings.EqualFold(a.StoreID, b.StoreID)},
				{"identity", string(a.Identity) == string(b.Identity)},
				{"authority", string(a.Authority) == string(b.Authority)},
				{"tls_key", string(a.TLSKey) == string(b.TLSKey)},
				{"device_url", a.DeviceURL == b.DeviceURL},
				{"mesh_addr", a.MeshAddr == b.MeshAddr},
			} {
				if same.equal {
					return fmt.Errorf("members[%d] and members[%d] have the same %s", j, i, same.field)
				}
			}
		}
	}
	return nil
}

func (t Timing) check(demo bool) error {
	switch {
	case t.EpochLife <= 0 || t.EpochLife.D() > EpochLifeMax:
		return fmt.Errorf("timing.epoch_life is %s, it must lie in (0, %s]", t.EpochLife.D(), EpochLifeMax)
	case t.Slack < 0 || t.Slack >= t.EpochLife/2:
		return fmt.Errorf("timing.slack is %s, it must lie in [0, half of epoch_life)", t.Slack.D())
	case t.Tick.D() < time.Millisecond || t.Tick > t.EpochLife:
		return fmt.Errorf("timing.tick is %s, it must lie in [1ms, epoch_life]", t.Tick.D())
	}
	switch t.Profile {
	case "", ProfileWAN, ProfileLAN:
	case ProfileLoopback:
		if !demo {
			return fmt.Errorf("timing.profile is %s, which demo charters alone may have", t.Profile)
		}
	default:
		return fmt.Errorf("timing.profile is %.40q, it must be %s, %s or, in a demo, %s", t.Profile, ProfileWAN, ProfileLAN, ProfileLoopback)
	}
	return nil
}

// checkName accepts what stands in file names, log lines and signed bodies alike.
func checkName(field, s string) error {
	if s == "" || len(s) > NameBytesMax {
		return fmt.Errorf("%s has %d bytes, it must have 1 to %d", field, len(s), NameBytesMax)
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' || r == ' ') {
			return fmt.Errorf("%s %.40q: letters, digits, '-', '_', '.' and spaces only", field, s)
		}
	}
	if s[0] == ' ' || s[0] == '.' || s[len(s)-1] == ' ' {
		return fmt.Errorf("%s %.40q begins or ends with a space or begins with a dot", field, s)
	}
	return nil
}
