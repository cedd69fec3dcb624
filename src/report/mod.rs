//! Reports: what a command came to, as JSON for programs and as one page of HTML for people.
//!
//! A page is one file with its styles and charts, without scripts or external resources. It follows the reader's light or
//! dark setting. On a phone tables scroll, and charts keep a readable letter size. It is made from the same typed values as
//! the JSON beside it (docs/REPORT.md), and every text is escaped.

mod chart;
mod forgotten;
mod page;
mod planned;
mod scrub;
mod steps;
mod summary;
mod svg;
#[cfg(test)]
mod tests;
mod verified;
mod verify;

pub use planned::planned;
pub use scrub::{ModelFiles, ScrubReport, scrub};
pub use steps::steps;
pub use verified::{
    Chosen, Forgotten, Gap, Label, ModelReport, SampleReport, SetsReport, TestSet, VerifyReport,
};
pub use verify::verify;
