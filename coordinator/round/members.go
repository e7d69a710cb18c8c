package round

import (
	"bytes"
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// apply keeps a member's newest KeyPackage (SA 2.1). Its signature was checked by parse.
func (c keyPackageCommand) apply(m *Machine, _ uint64) []Outcome {
	return []Outcome{m.addPackage(c.keyPackage)}
}

func (m *Machine) addPackage(k keyPackage) Outcome {
	if old := m.packages[k.parsed.Member]; old != nil {
		if bytes.Equal(old.signed.Body, k.signed.Body) {
			return Outcome{Code: Duplicate}
		}
		if k.parsed.Epoch <= old.parsed.Epoch {
			return refuse(StaleEpoch, fmt.Sprintf("member %d: epoch %d after %d", k.parsed.Member, k.parsed.Epoch, old.parsed.Epoch))
		}
	}
	if k.parsed.NotAfterMs <= m.timeMs {
		return refuse(Outdated, fmt.Sprintf("member %d: epoch %d ended before the log time", k.parsed.Member, k.parsed.Epoch))
	}
	m.packages[k.parsed.Member] = &k
	m.published(k.parsed)
	return Outcome{Code: OK}
}

// apply enrols a device, or renews its certificate by a new token of the same authority. A token is good for one
// device; to repeat it for the same device changes nothing.
func (c deviceCertCommand) apply(m *Machine, _ uint64) []Outcome {
	return []Outcome{m.addDevice(c.signed, c.cert)}
}

func (m *Machine) addDevice(signed statement.Signed, cert *statement.DeviceCert) Outcome {
	tokens := m.tokens[cert.Authority]
	if owner, ok := tokens[cert.Token]; ok {
		if owner == cert.Device {
			return Outcome{Code: Duplicate}
		}
		return refuse(TokenUsed, "the token enrolled another device")
	}
	if cert.ExpiresMs <= m.timeMs {
		return refuse(Outdated, "the certificate ended before the log time")
	}
	if old := m.devices[cert.Device]; old != nil && old.cert.Authority != cert.Authority && old.cert.ExpiresMs > m.timeMs {
		return refuse(Conflict, fmt.Sprintf("the device is certified by authority %d", old.cert.Authority))
	}
	if r := m.countedFor(cert.Device, cert.Authority); r != nil {
		return refuse(Conflict, fmt.Sprintf("the device's contribution in round %v counts for another authority", r.id))
	}
	if len(tokens) >= DevicesMax {
		return refuse(DeviceLimit, fmt.Sprintf("authority %d has certified %d devices, limit %d", cert.Authority, len(tokens), DevicesMax))
	}
	tokens[cert.Token] = cert.Device
	m.devices[cert.Device] = &device{signed: signed, cert: cert}
	return Outcome{Code: OK}
}

// countedFor returns the live round in which a contribution of the device counts for another authority than this one; nil
// if there is none. What an Accept says of its authority is in no signature: as long as its round can still be decided
// the device's certificate says the same, and a snapshot is held to that.
func (m *Machine) countedFor(device label.Hash, authority int) *round {
	for _, l := range m.lines {
		if r := l.newest; r != nil && !r.phase.Terminal() {
			if i, ok := r.byDevice[device]; ok && r.accepts[i].Authority != authority {
				return r
			}
		}
	}
	return nil
}
