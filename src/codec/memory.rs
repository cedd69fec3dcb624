//! How much memory a search takes, estimated before it starts.

/// Memory of a process beside its data and the search: code and the stacks of threads.
const PROGRAM_BYTES: usize = 16 << 20;

/// Upper bounds on the memory of a search, and the method it will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Bytes at most, without the data themselves and without `bytes_per_chosen`.
    pub bytes: usize,
    /// Additional bytes for every column that is chosen.
    pub bytes_per_chosen: usize,
    /// How neighbours are found (by FOCI: in the steps after the first).
    pub method: &'static str,
}

impl MemoryEstimate {
    /// Bytes of the whole process with `chosen` columns chosen and `data` bytes of data.
    pub fn total(&self, data: usize, chosen: usize) -> usize {
        let bytes = self.bytes.saturating_add(PROGRAM_BYTES);
        data.saturating_add(bytes).saturating_add(self.bytes_per_chosen.saturating_mul(chosen))
    }
}
