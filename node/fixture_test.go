package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/pin"
	"github.com/ruche-federation/ruche/crypto/seal"
	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/node/llm/safetensors"
	"github.com/ruche-federation/ruche/node/llm/tokenizer"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// byteTokenizer has the 256 bytes and two control tokens.
func byteTokenizer(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	vocab := []string{"<s>", "</s>"}
	for b := range 256 {
		vocab = append(vocab, tokenizer.Symbols(string([]byte{byte(b)})))
	}
	tok, err := tokenizer.NewByteLevel(vocab, nil, "<s>", "</s>")
	must(t, err)
	return tok
}

// writeModel writes a tiny random model of the LLaMA family as a Hugging Face folder.
func writeModel(t testing.TB, seed uint64) string {
	t.Helper()
	dir := t.TempDir()
	m, err := llm.NewModel(llm.Config{Dim: 16, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 8, Hidden: 32, Vocab: 258, Context: 64, NormEps: 1e-5, Rope: llm.Rope{Theta: 10000}, Tied: true})
	must(t, err)
	rng := mrand.New(mrand.NewPCG(seed, 1))
	var tensors []safetensors.Values
	for _, p := range m.Params() {
		for i := range p.Data {
			if p.Data[i] = float32(rng.NormFloat64()) * 0.2; len(p.Shape) == 1 {
				p.Data[i] = 1
			}
		}
		tensors = append(tensors, safetensors.Values{Name: p.Name, DType: "F32", Shape: p.Shape, Data: p.Data})
	}
	must(t, safetensors.WriteFile(filepath.Join(dir, "model.safetensors"), tensors, nil))
	config, err := json.Marshal(map[string]any{"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu", "hidden_size": 16,
		"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32, "vocab_size": 258,
		"max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600))
	must(t, byteTokenizer(t).WriteHF(dir))
	return dir
}

// consortium is four members behind real TLS ports on this machine, with a memory instead of a log.
type consortium struct {
	t           testing.TB
	ch          *charter.Charter
	path        string // charter.json
	identities  []*identity.Member
	authorities []*identity.Key
	votes       []*identity.Key
	seals       []*seal.PrivateKey
	tls         []*identity.Key

	mu       sync.Mutex // guards what follows
	token    []byte
	open     *coordpb.Certificate
	latest   *coordpb.RoundRecord
	adapters map[label.Hash][]byte
	uploads  int
	checkIns int
	certify  func(*statement.DeviceCert) // changes a certificate before it is signed
	taken    func()                      // after an upload is taken
}

// newConsortium starts the members. tasks are made for the base whose hash is given.
func newConsortium(t testing.TB, base string, modules []layout.Module, alter func(*charter.Options)) *consortium {
	t.Helper()
	c := &consortium{t: t, adapters: map[label.Hash][]byte{}, token: bytes.Repeat([]byte{9}, 20), path: filepath.Join(t.TempDir(), "charter.json")}
	key := func() *identity.Key {
		k, err := identity.NewKey(rand.Reader)
		must(t, err)
		return k
	}
	var cards []charter.Card
	var listeners []net.Listener
	for i := range 4 {
		id, err := identity.NewMember(rand.Reader)
		must(t, err)
		s, err := seal.GenerateKey(rand.Reader)
		must(t, err)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		listeners = append(listeners, listener)
		c.identities, c.seals, c.tls = append(c.identities, id), append(c.seals, s), append(c.tls, key())
		c.authorities, c.votes = append(c.authorities, key()), append(c.votes, key())
		cards = append(cards, charter.Card{Name: fmt.Sprintf("org-%d", i), StoreID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
			Identity: id.Public(), Authority: c.authorities[i].Public(), TLSKey: c.tls[i].Public(),
			DeviceURL: "https://" + listener.Addr().String(), MeshAddr: fmt.Sprintf("org-%d.example:7421", i)})
	}
	o := charter.Options{Consortium: "Essaim", Demo: true, F: 1, MinContributors: 3, Tasks: []charter.Task{commonsTask(t, base, modules), meanTask(t)},
		Timing: charter.Timing{EpochLife: hours(24), Slack: charter.Duration(time.Minute), Tick: charter.Duration(time.Second)}}
	if alter != nil {
		alter(&o)
	}
	body, err := charter.Draft(cards, o)
	must(t, err)
	var signatures []charter.Signature
	for _, id := range c.identities {
		s, err := charter.Sign(body, id)
		must(t, err)
		signatures = append(signatures, s)
	}
	file, err := charter.Assemble(body, signatures)
	must(t, err)
	must(t, os.WriteFile(c.path, file, 0o600))
	c.ch, err = charter.Load(c.path)
	must(t, err)
	for i, l := range listeners {
		c.serve(l, c.tls[i], i)
	}
	return c
}

func hours(n int) charter.Duration { return charter.Duration(time.Duration(n) * time.Hour) }

func newTask(id, kind string, l layout.Layout) charter.Task {
	task := charter.NewTask(id, kind)
	task.Layout, task.InitSeed = l, label.Sum(label.TagTask, []byte("seed"))
	task.Encoding = charter.Encoding{CReal: 4, C: 2253}
	task.Cohort = charter.Cohort{NMin: 3, NMax: 100}
	minutes := func(m int) charter.Duration { return charter.Duration(time.Duration(m) * time.Minute) }
	task.Timings = charter.Timings{CloseAfter: minutes(10), AckTimeout: minutes(1), AckAfter: minutes(5), RevealAfter: minutes(60)}
	return task
}

func commonsTask(t testing.TB, base string, modules []layout.Module) charter.Task {
	t.Helper()
	l, err := layout.LoRA(modules, 4, 8, layout.StandardTail())
	must(t, err)
	task := newTask("commons", charter.KindLoRA, l)
	task.Base = base
	task.Recipe = charter.Recipe{Rank: 4, Alpha: 8, Steps: 12, Batch: 4, Window: 32, LR: 0.02, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Clip: 1}
	return task
}

func meanTask(t testing.TB) charter.Task {
	t.Helper()
	l, err := layout.Vector("mean", 6, []layout.Metric{{Name: layout.MetricExamples, Max: 64}})
	must(t, err)
	task := newTask("average", charter.KindVector, l)
	task.Window = "once"
	return task
}

// modulesOf are all linear modules of a model, as a task's author lists them.
func modulesOf(m *llm.Model) (out []layout.Module) {
	for _, l := range m.Linear() {
		out = append(out, layout.Module{Name: l.Name, In: l.In, Out: l.Out})
	}
	return out
}

func (c *consortium) serve(l net.Listener, key *identity.Key, me int) {
	c.t.Helper()
	cert, err := pin.Certificate(key.Ed25519(), "member", time.Now())
	must(c.t, err)
	c.serveAs(l, cert, me)
}

func (c *consortium) serveAs(l net.Listener, cert tls.Certificate, me int) {
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(pin.Server(cert, protocol))), grpc.MaxRecvMsgSize(messageBytesMax))
	coordpb.RegisterDeviceServer(server, &fakeMember{c: c, me: me})
	go server.Serve(l)
	c.t.Cleanup(server.Stop)
}

// tokenText is the token as an operator hands it out.
func (c *consortium) tokenText() string { return tokenEncoding.EncodeToString(c.token) }

// show opens a round.
func (c *consortium) show(task string, seq uint64) *statement.RoundConfig {
	c.t.Helper()
	return c.showAt(task, seq, time.Now())
}

// showAt opens a round that was proposed at that time.
func (c *consortium) showAt(task string, seq uint64, at time.Time) *statement.RoundConfig {
	c.t.Helper()
	now := at.UnixMilli()
	var packages []statement.Signed
	for j := range c.ch.N {
		k := &statement.KeyPackage{Charter: c.ch.Hash(), Member: j, Epoch: 1, SealKey: c.seals[j].Public(), VoteKey: c.votes[j].Public(),
			NotBeforeMs: now, NotAfterMs: now + 24*time.Hour.Milliseconds()}
		packages = append(packages, statement.SignMember(c.identities[j], label.StmtKeyPackage, k.Bytes()))
	}
	t, _ := c.ch.Task(task)
	start := statement.Start{Model: t.Init().Hash(), Part: t.Layout.Factor}
	if t.Kind == charter.KindVector {
		start.Part = t.WindowPart(at)
	}
	rc, err := statement.NewRoundConfig(c.ch, task, seq, start, now, packages)
	must(c.t, err)
	cert := c.signed(label.StmtRoundConfig, rc.Bytes(), 0, 1, 2)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = cert
	return rc
}

// publish ends a round with these values.
func (c *consortium) publish(rc *statement.RoundConfig, values []float32) layout.Model {
	t, _ := c.ch.Task(rc.Task)
	m := layout.Model{TaskID: rc.Task, LayoutHash: t.Layout.Hash(), Seq: rc.Seq, Values: values}
	r := &statement.Result{Round: rc.ID(), Set: label.Sum(label.TagSet), X: label.Sum(label.TagSum), Model: m.Hash()}
	record := &coordpb.RoundRecord{Config: c.signed(label.StmtRoundConfig, rc.Bytes(), 0, 1, 2), Phase: "published", Result: c.signed(label.StmtResult, r.Bytes(), 0, 3)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adapters[m.Hash()] = m.Canonical()
	c.open, c.latest = nil, record
	return m
}

func (c *consortium) signed(stmt string, body []byte, members ...int) *coordpb.Certificate {
	cert := &coordpb.Certificate{Body: body}
	for _, j := range members {
		cert.Signatures = append(cert.Signatures, &coordpb.MemberSignature{Member: uint32(j), Signature: c.identities[j].Sign(stmt, body)})
	}
	return cert
}

// afterUpload is called when an upload is taken.
func (c *consortium) afterUpload(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = do
}

// seen counts the uploads that were taken, and the check-ins.
func (c *consortium) seen() (uploads, checkIns int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.uploads, c.checkIns
}

// asked waits until so many more check-ins have come: a device comes again when it has done with the answer before.
func (c *consortium) asked(more int) {
	_, before := c.seen()
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, now := c.seen(); now >= before+more {
			return
		}
	}
}

type fakeMember struct {
	coordpb.UnimplementedDeviceServer
	c  *consortium
	me int
}

func (m *fakeMember) Enroll(_ context.Context, r *coordpb.EnrollRequest) (*coordpb.EnrollResponse, error) {
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.ch.Hash(); !bytes.Equal(r.GetCharterHash(), h[:]) {
		return nil, status.Error(codes.FailedPrecondition, "another charter")
	}
	if !bytes.Equal(r.GetToken(), c.token) {
		return nil, status.Error(codes.PermissionDenied, "this member issued no such token, or it is used")
	}
	cert := &statement.DeviceCert{Charter: c.ch.Hash(), Device: identity.DeviceID(identity.Public(r.GetDevicePublic())), Public: identity.Public(r.GetDevicePublic()),
		Authority: m.me, Quota: 10, ExpiresMs: time.Now().Add(24 * time.Hour).UnixMilli(), Token: statement.HashToken(r.GetToken())}
	if c.certify != nil {
		c.certify(cert)
	}
	s := statement.SignKey(c.authorities[m.me], label.StmtDeviceCert, cert.Bytes())
	return &coordpb.EnrollResponse{DeviceCert: &coordpb.Signed{Body: s.Body, Signature: s.Signature}}, nil
}

func (m *fakeMember) CheckIn(_ context.Context, r *coordpb.CheckInRequest) (*coordpb.CheckInResponse, error) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.checkIns++
	out := &coordpb.CheckInResponse{Retry: &coordpb.RetryWindow{DelayMaxMs: 10}}
	if m.c.open != nil && taskOf(m.c.open) == r.GetTaskId() {
		out.Round = m.c.open
	}
	if m.c.latest != nil && taskOf(m.c.latest.GetConfig()) == r.GetTaskId() {
		out.Latest = m.c.latest
		out.Earlier = append(out.Earlier, m.c.latest)
	}
	return out, nil
}

func taskOf(cert *coordpb.Certificate) string {
	rc, err := statement.ParseRoundConfig(cert.GetBody())
	if err != nil {
		return ""
	}
	return rc.Task
}

func (m *fakeMember) Upload(stream grpc.ClientStreamingServer[coordpb.UploadRequest, coordpb.UploadResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err != nil {
			break
		}
	}
	open := first.GetOpen()
	r := &statement.Receipt{Round: label.Hash(open.GetRoundId()), Header: statement.HashHeader(open.GetHeader().GetBody()), Index: 7}
	answer := &coordpb.UploadResponse{Outcome: "accepted"}
	for _, j := range []int{0, 1, 2} {
		s := statement.SignKey(m.c.votes[j], label.StmtReceipt, r.Bytes())
		answer.Receipts = append(answer.Receipts, &coordpb.MemberStatement{Member: uint32(j), Statement: &coordpb.Signed{Body: s.Body, Signature: s.Signature}})
	}
	m.c.mu.Lock()
	m.c.uploads++
	taken := m.c.taken
	m.c.mu.Unlock()
	if taken != nil {
		taken()
	}
	return stream.SendAndClose(answer)
}

func (m *fakeMember) GetAdapter(r *coordpb.GetAdapterRequest, stream grpc.ServerStreamingServer[coordpb.Chunk]) error {
	m.c.mu.Lock()
	b, ok := m.c.adapters[label.Hash(r.GetModelHash())]
	m.c.mu.Unlock()
	if !ok {
		return status.Error(codes.NotFound, "no such state")
	}
	return coordpb.SendChunks(bytes.NewReader(b), 0, stream.Send)
}

// device is an initialised folder with a journal of these records.
func device(t testing.TB, base string, records []string) (string, *Home) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "device")
	h, err := Init(dir, InitOptions{BasePath: base}, rand.Reader)
	must(t, err)
	if len(records) > 0 {
		var lines bytes.Buffer
		for _, r := range records {
			must(t, json.NewEncoder(&lines).Encode(map[string]string{"user": "amelie", "text": r}))
		}
		_, _, err := ImportData(t.Context(), dir, &lines, "", time.Now, quiet())
		must(t, err)
	}
	return dir, h
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func runOptions() RunOptions { return RunOptions{Now: time.Now, Rand: rand.Reader, Logger: quiet()} }

// sayings are records with something to learn: one sentence, a number in it.
func sayings(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("the bees of hive %d fly out at noon and come back with honey", i))
	}
	return out
}
