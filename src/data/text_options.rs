//! How rows of text are read: the tokenizer, the columns, and how much of a text is kept.

use std::path::PathBuf;
use std::sync::Arc;

use super::tokenizer::Tokenizer;

/// What makes token ids of texts.
#[derive(Clone, Debug, Default)]
pub enum TokenizerSource {
    /// Nothing; texts are refused.
    #[default]
    Missing,
    /// The tokenizer in a model's folder.
    Beside(PathBuf),
    /// The tokenizer of a folder or file.
    At(PathBuf),
    /// A new vocabulary of at most this many tokens, made of the texts ([`Tokenizer::made`]).
    Made(usize),
    /// This one.
    Ready(Arc<Tokenizer>),
}

/// How texts become samples.
#[derive(Clone, Debug, Default)]
pub struct TextOptions {
    /// What makes token ids of them.
    pub tokenizer: TokenizerSource,
    /// The most tokens of a text that are kept, where it is to be fewer than the model takes.
    pub most: Option<usize>,
    /// The column of texts; by default the one of a usual name.
    pub text: Option<String>,
    /// The columns of labels, also of a table of pictures; by default the one of a usual name.
    pub labels: Vec<String>,
}
