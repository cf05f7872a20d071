package column

// A log entry carries a WriteBatch in the format of FORMAT.md. Decode refuses
// larger entries before it allocates, because constant blocks make many rows
// of few bytes; who makes a batch keeps it below.
const (
	MaxEntryRows  = 4 << 20  // of all tables
	MaxEntrySlots = 32 << 20 // rows × columns, summed over the tables
	MaxEntryKeys  = 64 << 20 // bytes of all series keys
)
