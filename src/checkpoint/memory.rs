//! Models of bytes in memory, which have no files of their own until they are written.

use std::path::Path;

use super::{Beside, Checkpoint, described};
use crate::data::file::StoredFile;
use crate::error::{Error, Result};

impl Checkpoint {
    /// A model in memory: the bytes of a model file of either kind, the text of its `config.json` where it has one, and the name of
    /// the file that [`Checkpoint::write_patched`] writes. `ignored` is that of [`Checkpoint::open_without`].
    ///
    /// # Errors
    /// Where the name is not that of a file, the bytes or the text are malformed, or a pattern is the name of no tensor.
    pub fn in_memory(
        name: &str,
        bytes: Vec<u8>,
        config: Option<&str>,
        ignored: &[String],
    ) -> Result<Checkpoint> {
        let path = Path::new(name);
        if path.file_name() != Some(path.as_os_str()) {
            return Err(Error::config(format!(
                "`{name}` is not the name of a file, which a model in memory needs"
            )));
        }
        let parsed = config.map(|text| {
            serde_json::from_str(text)
                .map_err(|e| Error::checkpoint(path, format!("its config is not JSON: {e}")))
        });
        let mut parsed = parsed.transpose()?;
        let files = described::files(StoredFile::of_bytes(path, bytes), None, &[], &mut parsed)?;
        let beside = Beside::Config(config.map(|text| text.as_bytes().to_vec()));
        Checkpoint::of_files(path, files, ignored, parsed, None, beside)
    }

    /// Whether it is of bytes in memory, so that it has no files of its own.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.beside, Beside::Config(_))
    }
}
