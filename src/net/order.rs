//! The order of a parameter's values in a file, and the order kept here.

/// How the order of a parameter's values in a file differs from the order kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The same in both.
    Same,
    /// The file has `[o, c, positions]` (PyTorch's filters, and a linear layer behind a flattened image);
    /// here it is `[o, positions, c]`.
    ChannelsLast {
        /// Rows.
        o: usize,
        /// Channels within a row.
        c: usize,
        /// Positions (`r · s`, or `h · w`) within a row.
        positions: usize,
    },
    /// The file has `[c, positions, o]`, a matrix that rows of inputs are multiplied by; here it is `[o, positions, c]`.
    RowsLast {
        /// Rows.
        o: usize,
        /// Channels within a row.
        c: usize,
        /// Positions within a row.
        positions: usize,
    },
}

impl Order {
    /// The index here of element `i` of the file.
    pub fn kept(self, i: usize) -> usize {
        match self {
            Order::Same => i,
            Order::ChannelsLast { c, positions, .. } => {
                let (row, rest) = (i / (c * positions), i % (c * positions));
                row * c * positions + rest % positions * c + rest / positions
            }
            Order::RowsLast { o, c, positions } => {
                let (row, rest) = (i % o, i / o);
                row * c * positions + rest % positions * c + rest / positions
            }
        }
    }

    /// How the values of one row differ, each row taken alone.
    pub fn of_row(self) -> Order {
        match self {
            Order::RowsLast { o, c, positions } => Order::ChannelsLast { o, c, positions },
            other => other,
        }
    }

    /// The values of a file, in the order kept here.
    pub fn from_stored(self, stored: &[f32]) -> Vec<f32> {
        if self == Order::Same {
            return stored.to_vec();
        }
        let mut kept = vec![0.0; stored.len()];
        match self {
            // Row by row, which is quicker than value by value.
            Order::ChannelsLast { c, positions, .. } if c * positions > 0 => {
                let row = c * positions;
                for (kept, stored) in kept.chunks_exact_mut(row).zip(stored.chunks_exact(row)) {
                    for (channel, values) in stored.chunks_exact(positions).enumerate() {
                        values.iter().enumerate().for_each(|(at, &value)| kept[at * c + channel] = value);
                    }
                }
            }
            _ => stored.iter().enumerate().for_each(|(i, &value)| kept[self.kept(i)] = value),
        }
        kept
    }

    /// The values kept here, in the order of a file. That of one row ([`Order::of_row`]) also fits any whole number of
    /// rows.
    pub fn to_stored(self, kept: &[f32]) -> Vec<f32> {
        (0..kept.len()).map(|i| kept[self.kept(i)]).collect()
    }
}
