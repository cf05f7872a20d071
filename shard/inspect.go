package shard

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/segment"
	"github.com/dasudian/dsdb/series"
)

// nameTries is how often Names reads a folder again that changes meanwhile.
const nameTries = 5

// Names returns what the numbers in the segment files of a shard's folder stand
// for. It changes nothing, so the shard may be in use, by another process too.
// Numbers that the index no longer knows, as of dropped measurements, are named
// by themselves, as #7. An error that wraps fs.ErrNotExist means that dir has
// no manifest.
func Names(fs vfs.FS, dir string) (segment.Names, error) {
	for try := 1; ; try++ {
		m, err := readManifest(fs, path.Join(dir, manifestName))
		if err != nil {
			return segment.Names{}, err
		}
		x, err := loadIndex(fs, dir, m)
		if err == nil {
			return namesOf(x.View()), nil
		}
		if !errors.Is(err, iofs.ErrNotExist) || try == nameTries {
			return segment.Names{}, fmt.Errorf("shard %d: %v", m.shard, err) // not %w: there is a manifest
		}
	}
}

// NoNames names every number by itself: for a segment file without its shard.
func NoNames() segment.Names { return namesOf(series.New().View()) }

func namesOf(v *series.View) segment.Names {
	measurements, fields := map[uint32]string{}, map[uint32]string{}
	for _, m := range v.Measurements() {
		measurements[v.MeasurementID(m)] = m
		names, _ := v.Fields(m)
		for _, f := range names {
			fields[v.FieldID(f)] = f
		}
	}
	return segment.Names{
		Measurement: func(id uint32) string { return nameOr(measurements, id) },
		Field:       func(_, id uint32) string { return nameOr(fields, id) },
		Series: func(_ uint32, id dsdb.SeriesID) string {
			if !v.Has(id) {
				return fmt.Sprintf("#%d", id)
			}
			return string(v.Key(id))
		},
	}
}

func nameOr(names map[uint32]string, id uint32) string {
	if n, ok := names[id]; ok {
		return n
	}
	return fmt.Sprintf("#%d", id)
}
