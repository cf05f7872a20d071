package wal

import (
	"hash/crc32"
	"io"
	"slices"

	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
)

const scanWindow = 4 << 20 // bytes read at once

// scanner reads batches of one segment through a window.
type scanner struct {
	file   vfs.File
	size   int64 // nothing behind it is read
	seg    uint64
	window []byte
	start  int64 // offset of window
}

// at returns n bytes at off, valid until the next call. The caller keeps
// off+n within size.
func (s *scanner) at(off, n int64) ([]byte, error) {
	if off < s.start || off+n > s.start+int64(len(s.window)) {
		want := min(max(n, scanWindow), s.size-off)
		s.window = slices.Grow(s.window[:0], int(want))[:want]
		s.start = off
		got, err := s.file.ReadAt(s.window, off)
		if int64(got) < want {
			s.window = s.window[:0]
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return s.window[off-s.start:][:n], nil
}

// batch reads the batch at off. The reason says why there is none; the header
// is zero unless it is sound itself.
func (s *scanner) batch(off int64) (h batchHeader, body []byte, reason string, err error) {
	if s.size-off < batchHeaderSize {
		return h, nil, "segment ends within a batch header", nil
	}
	head, err := s.at(off, batchHeaderSize)
	if err != nil {
		return h, nil, "", err
	}
	h, ok := parseBatchHeader(head, s.seg, off)
	if !ok {
		return batchHeader{}, nil, "no batch header", nil
	}
	if batchHeaderSize+int64(h.bodyLen) > s.size-off {
		return h, nil, "batch reaches beyond the end of the segment", nil
	}
	whole, err := s.at(off, batchHeaderSize+int64(h.bodyLen))
	if err != nil {
		return h, nil, "", err
	}
	body = whole[batchHeaderSize:]
	if crc32.Checksum(body, castagnoli) != h.bodyCRC && !mutant.ChecksumSkipped {
		return h, nil, "batch checksum does not match", nil
	}
	if err := checkBody(body, h.records); err != nil {
		return h, nil, err.Error(), nil
	}
	return h, body, "", nil
}

// find returns the offset, at or behind from, of the next batch header of this
// segment with a number above due, or size if there is none.
func (s *scanner) find(from int64, due uint64) (int64, error) {
	for off := from; off+batchHeaderSize <= s.size; off += pageSize {
		head, err := s.at(off, batchHeaderSize)
		if err != nil {
			return 0, err
		}
		if h, ok := parseBatchHeader(head, s.seg, off); ok && h.seq > due {
			return off, nil
		}
	}
	return s.size, nil
}
