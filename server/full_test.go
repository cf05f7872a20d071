package server

import (
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server/config"
)

// On a full disk a node can be started again and again: what it has is read, the
// statements that make space work, and then so do writes.
func TestFullDiskIsMadeRoomOn(t *testing.T) {
	t.Parallel()
	for _, drop := range []string{
		"DROP DATABASE big",
		"DROP RETENTION POLICY autogen ON big",
		"ALTER RETENTION POLICY autogen ON big DURATION 168h",
	} {
		t.Run(drop, func(t *testing.T) {
			disk := vfs.NewMem(1)
			cfg := busyConfig()
			cfg.Data.WALMaxSize = 4 << 20
			cfg.Retention.Enabled, cfg.Retention.CheckInterval = true, config.Duration(100*time.Millisecond)
			c := open(t, disk, cfg)
			c.mustQuery("", "CREATE DATABASE small; CREATE DATABASE big")
			c.mustWrite("small", "m v=1 1")
			random := rand.New(rand.NewPCG(1, 1))
			text := func() string { // that does not compress
				b := make([]byte, 5_000)
				for i := range b {
					b[i] = byte(random.Uint32())
				}
				return hex.EncodeToString(b)
			}
			fill := func() (err error) {
				c.patience = 5 * time.Second
				defer func() { c.patience = *patience }()
				for i := 0; err == nil && i < 10000; i++ {
					err = c.write("big", "m s=\""+text()+"\" "+strconv.Itoa(i))
				}
				return err
			}
			for i := range 50 {
				c.mustWrite("big", "m s=\""+text()+"\" "+strconv.Itoa(i))
			}
			eventually(t, "the points are in files, and the log has its reserve", func() bool {
				st := c.node.wal.Stats()
				return st.UnflushedBytes < 128<<10 && st.Spares >= 3
			})
			fillDisk(disk)
			if fill() == nil {
				t.Fatal("the disk is not full")
			}
			eventually(t, "the node says that it takes no points", func() bool {
				err := c.node.Ready(t.Context())
				return err != nil && strings.Contains(err.Error(), "drop databases")
			})
			for range 4 {
				fillDisk(disk)
				c = c.reopen()
				c.expect("small", "SELECT count(v) FROM m", "m time=0 count=1")
				_ = fill()
			}
			c.mustQuery("", drop)
			c.patience = 5 * time.Second // with one try of many
			eventually(t, "points are taken again", func() bool { return c.write("small", "m v=2 2") == nil })
			c.patience = *patience
			eventually(t, "the node is ready", func() bool { return c.node.Ready(t.Context()) == nil })
			c.expect("small", "SELECT count(v) FROM m", "m time=0 count=2")
			disk.SetCapacity(0)
			c = c.reopen()
			c.expect("small", "SELECT count(v) FROM m", "m time=0 count=2")
			c.close()
		})
	}
}

// fillDisk leaves no byte of a disk free.
func fillDisk(disk *vfs.Mem) {
	disk.SetCapacity(1 << 40)
	free, total, _ := disk.Free("/")
	disk.SetCapacity(int64(total - free))
}
