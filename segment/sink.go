package segment

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/dasudian/dsdb/internal/vfs"
)

// A segment is an Arrow file with a seal between its last record and its footer:
//
//	end of stream | CRC-32C of each page before it | trailer | footer, its length, ARROW1
//
// Arrow readers find the footer from the end and never look at the seal.
const (
	pageSize    = 1 << 16
	trailerSize = 40
	sealMagic   = "DSDBSEAL"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// endOfStream tells a reader of the stream format that no message follows.
var endOfStream = []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// sink writes a file front to back through a buffer and checksums its pages.
// It is the io.WriteSeeker of the Arrow writer, which seeks only to learn the position.
type sink struct {
	f     vfs.File
	buf   []byte
	pos   int64 // of the next byte
	pages []uint32
	page  uint32 // checksum of the page at hand
	file  uint32 // checksum of the file so far
	held  []byte // what is written while hold is set
	hold  bool
}

const sinkBuffer = 1 << 18

func (s *sink) Write(p []byte) (int, error) {
	if s.hold {
		s.held = append(s.held, p...)
		return len(p), nil
	}
	s.file = crc32.Update(s.file, castagnoli, p)
	for rest := p; len(rest) > 0; {
		n := min(len(rest), pageSize-int(s.pos%pageSize))
		s.page = crc32.Update(s.page, castagnoli, rest[:n])
		s.pos += int64(n)
		rest = rest[n:]
		if s.pos%pageSize == 0 {
			s.pages = append(s.pages, s.page)
			s.page = 0
		}
	}
	if len(s.buf)+len(p) > sinkBuffer {
		if err := s.flush(int64(len(p))); err != nil {
			return 0, err
		}
		if len(p) > sinkBuffer {
			_, err := s.f.WriteAt(p, s.pos-int64(len(p)))
			return len(p), err
		}
	}
	s.buf = append(s.buf, p...)
	return len(p), nil
}

// flush writes the buffer, which ends ahead bytes before s.pos.
func (s *sink) flush(ahead int64) error {
	if len(s.buf) == 0 {
		return nil
	}
	_, err := s.f.WriteAt(s.buf, s.pos-ahead-int64(len(s.buf)))
	s.buf = s.buf[:0]
	return err
}

// Seek tells the position; it cannot change it.
func (s *sink) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.New("segment: a file is written front to back")
	}
	return s.pos + int64(len(s.held)), nil
}

// seal writes the seal and then the footer.
func (s *sink) seal(footer []byte) error {
	end := append([]byte(nil), endOfStream...)
	for (s.pos+int64(len(end)))%8 != 0 {
		end = append(end, 0)
	}
	if _, err := s.Write(end); err != nil {
		return err
	}
	covered := s.pos
	pages := s.pages
	if covered%pageSize != 0 {
		pages = append(pages, s.page)
	}
	var b []byte
	for _, crc := range pages {
		b = binary.LittleEndian.AppendUint32(b, crc)
	}
	b = appendTrailer(b, uint64(covered), footer)
	if _, err := s.Write(b); err != nil {
		return err
	}
	if _, err := s.Write(footer); err != nil {
		return err
	}
	return s.flush(0)
}

// appendTrailer completes a seal of which b holds the page checksums.
func appendTrailer(b []byte, covered uint64, footer []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, covered)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(footer)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(footer, castagnoli))
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	b = binary.LittleEndian.AppendUint32(b, Version)
	return append(b, sealMagic...)
}
