// Checks our evidence with packages that no one here wrote: golang.org/x/mod/sumdb/note and
// golang.org/x/mod/sumdb/tlog, as they come with Go. One JSON question on standard input, one JSON
// answer on standard output. Driven by ../test_ledger_tools.py.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Base64 strings in JSON: [][]byte is one.
type question struct {
	Leaves  [][]byte    // prove everything about this tree
	Records []record    // check these inclusion proofs
	Trees   []extension // check these consistency proofs
	Open    *opening    // open this note
	Sign    *signing    // sign this note
	Proof   *proofFile  // check this tlog-proof
}

type record struct {
	Proof      [][]byte
	Size, At   int64
	Root, Leaf []byte
}

type extension struct {
	Proof         [][]byte
	Size, OldSize int64
	Root, OldRoot []byte
}

type opening struct {
	Note      string
	Logs      []string // vkeys of type 0x01
	Witnesses []string // vkeys of type 0x04
}

type signing struct{ Text, Key string }

type proofFile struct {
	opening
	Leaf []byte
}

type answer struct {
	Roots       [][]byte     // by size, from 1
	Inclusions  [][][][]byte // by size, by index
	Consistency [][][][]byte // by size, by old size, both from 1
	Accepted    []bool       // of Records, then of Trees
	Text        string
	Verified    []string
	Unverified  []string
	Note        string
	Error       string
}

func main() {
	var q question
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		fail(err)
	}
	a := answer{}
	if q.Leaves != nil {
		prove(&q, &a)
	}
	for _, r := range q.Records {
		a.Accepted = append(a.Accepted, r.check() == nil)
	}
	for _, t := range q.Trees {
		err := tlog.CheckTree(hashes(t.Proof), t.Size, hash(t.Root), t.OldSize, hash(t.OldRoot))
		a.Accepted = append(a.Accepted, err == nil)
	}
	var err error
	if q.Open != nil {
		_, err = q.Open.open(&a)
	}
	if q.Sign != nil {
		err = q.Sign.sign(&a)
	}
	if q.Proof != nil {
		err = q.Proof.check(&a)
	}
	if err != nil {
		a.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func hash(data []byte) (h tlog.Hash) {
	if copy(h[:], data) != tlog.HashSize {
		fail(errors.New("not a hash"))
	}
	return h
}

func hashes(data [][]byte) []tlog.Hash {
	result := []tlog.Hash{}
	for _, one := range data {
		result = append(result, hash(one))
	}
	return result
}

func plain(proof []tlog.Hash) [][]byte {
	result := [][]byte{}
	for _, one := range proof {
		result = append(result, append([]byte{}, one[:]...))
	}
	return result
}

func prove(q *question, a *answer) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := []tlog.Hash{}
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	for at, leaf := range q.Leaves {
		more, err := tlog.StoredHashesForRecordHash(int64(at), hash(leaf), reader)
		if err != nil {
			fail(err)
		}
		stored = append(stored, more...)
	}
	for size := int64(1); size <= int64(len(q.Leaves)); size++ {
		root, err := tlog.TreeHash(size, reader)
		if err != nil {
			fail(err)
		}
		a.Roots = append(a.Roots, append([]byte{}, root[:]...))
		inclusions, consistency := [][][]byte{}, [][][]byte{}
		for at := int64(0); at < size; at++ {
			path, err := tlog.ProveRecord(size, at, reader)
			if err != nil {
				fail(err)
			}
			inclusions = append(inclusions, plain(path))
			extension, err := tlog.ProveTree(size, at+1, reader)
			if err != nil {
				fail(err)
			}
			consistency = append(consistency, plain(extension))
		}
		a.Inclusions = append(a.Inclusions, inclusions)
		a.Consistency = append(a.Consistency, consistency)
	}
}

func (r record) check() error {
	return tlog.CheckRecord(hashes(r.Proof), r.Size, hash(r.Root), r.At, hash(r.Leaf))
}

// A cosigner is c2sp.org/tlog-cosignature for the note package.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (*cosigner, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed vkey")
	}
	id, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return nil, errors.New("malformed cosigner key")
	}
	return &cosigner{parts[0], uint32(id), key[1:]}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig))
	return ed25519.Verify(c.key, append([]byte(head), msg...), sig[8:])
}

func (o opening) open(a *answer) (*note.Note, error) {
	known := []note.Verifier{}
	for _, vkey := range o.Logs {
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, err
		}
		known = append(known, verifier)
	}
	for _, vkey := range o.Witnesses {
		verifier, err := newCosigner(vkey)
		if err != nil {
			return nil, err
		}
		known = append(known, verifier)
	}
	opened, err := note.Open([]byte(o.Note), note.VerifierList(known...))
	if err != nil {
		return nil, err
	}
	a.Text = opened.Text
	for _, one := range opened.Sigs {
		a.Verified = append(a.Verified, one.Name)
	}
	for _, one := range opened.UnverifiedSigs {
		a.Unverified = append(a.Unverified, one.Name)
	}
	return opened, nil
}

func (s signing) sign(a *answer) error {
	signer, err := note.NewSigner(s.Key)
	if err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: s.Text}, signer)
	a.Note = string(signed)
	return err
}

// check reads c2sp.org/tlog-proof@v1 with nothing but Go's packages.
func (p proofFile) check(a *answer) error {
	head, checkpoint, found := strings.Cut(p.Note, "\n\n")
	lines := strings.Split(head, "\n")
	if !found || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a tlog-proof")
	}
	lines = lines[1:]
	if strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	at, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
	if err != nil {
		return err
	}
	path := [][]byte{}
	for _, line := range lines[1:] {
		one, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		path = append(path, append([]byte{}, one[:]...))
	}
	p.opening.Note = checkpoint
	opened, err := p.opening.open(a)
	if err != nil {
		return err
	}
	tree := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(tree[1], 10, 64)
	if err != nil {
		return err
	}
	root, err := tlog.ParseHash(tree[2])
	if err != nil {
		return err
	}
	return record{Proof: path, Size: size, At: at, Root: root[:], Leaf: p.Leaf}.check()
}
