//! The steps before the vocabulary: normalisation, and splitting into words.

use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A step of normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Control characters go, and every white space becomes a blank.
    Clean,
    /// Blanks around every Chinese character.
    Chinese,
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    /// Marks that take no place of their own go (category Mn).
    Accents,
    /// All combining marks go (Mn, Mc, Me).
    Marks,
    /// Small letters, one character after another.
    Lowercase,
}

impl Step {
    /// A text after this step.
    pub fn apply(self, text: &str) -> String {
        match self {
            Step::Clean => {
                text.chars().filter(|&c| !goes(c)).map(|c| if c.is_whitespace() { ' ' } else { c }).collect()
            }
            Step::Chinese => {
                let mut spaced = String::with_capacity(text.len());
                for c in text.chars() {
                    match is_chinese(c) {
                        true => spaced.extend([' ', c, ' ']),
                        false => spaced.push(c),
                    }
                }
                spaced
            }
            Step::Nfc => text.nfc().collect(),
            Step::Nfd => text.nfd().collect(),
            Step::Nfkc => text.nfkc().collect(),
            Step::Nfkd => text.nfkd().collect(),
            Step::Accents => text.chars().filter(|c| !c.is_mark_nonspacing()).collect(),
            Step::Marks => text.chars().filter(|&c| !is_combining_mark(c)).collect(),
            Step::Lowercase => text.chars().flat_map(char::to_lowercase).collect(),
        }
    }
}

/// A text after all of these steps.
pub(super) fn normalise(steps: &[Step], text: &str) -> String {
    steps.iter().fold(text.to_string(), |text, step| step.apply(&text))
}

/// BERT's normalisation.
pub(super) struct Bert {
    pub clean: bool,
    pub chinese: bool,
    /// Whether accents go; by default where letters become small.
    pub accents: Option<bool>,
    pub lower: bool,
}

impl Bert {
    /// As steps.
    pub fn steps(&self) -> Vec<Step> {
        let accents = self.accents.unwrap_or(self.lower);
        let all = [
            (self.clean, Step::Clean),
            (self.chinese, Step::Chinese),
            (accents, Step::Nfd),
            (accents, Step::Accents),
            (self.lower, Step::Lowercase),
        ];
        all.into_iter().filter_map(|(wanted, step)| wanted.then_some(step)).collect()
    }
}

/// Whether a character goes: NUL, the replacement character, and control characters but for line ends and tabs.
fn goes(c: char) -> bool {
    matches!(c, '\0' | '\u{fffd}') || (!matches!(c, '\t' | '\n' | '\r') && c.is_other())
}

/// The blocks of Chinese characters, as the tokenizers library has them: the extension E from U+2B920, not U+2B820.
fn is_chinese(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x20000..=0x2a6df
            | 0x2a700..=0x2b73f
            | 0x2b740..=0x2b81f
            | 0x2b920..=0x2ceaf
            | 0xf900..=0xfaff
            | 0x2f800..=0x2fa1f
    )
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_punctuation()
}

/// The words of a normalised text: split at white space, and every punctuation mark is a word of its own.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().flat_map(|part| {
        let marks = part.match_indices(is_punctuation);
        let mut ends: Vec<usize> = marks.flat_map(|(at, mark)| [at, at + mark.len()]).collect();
        ends.push(part.len());
        let mut start = 0;
        ends.into_iter()
            .map(move |end| &part[std::mem::replace(&mut start, end)..end])
            .filter(|word| !word.is_empty())
    })
}

/// A text cut at the tokens that stand in it, the longest where several begin at a place: each part with the token behind
/// it, which the last one has not.
pub(super) fn cut<'a>(text: &'a str, tokens: &[(String, u32)]) -> Vec<(&'a str, Option<u32>)> {
    let (mut parts, mut start, mut at) = (vec![], 0, 0);
    while let Some(next) = text[at..].chars().next() {
        let here = tokens.iter().filter(|(token, _)| text[at..].starts_with(token.as_str()));
        match here.max_by_key(|(token, _)| token.len()) {
            Some((token, id)) => {
                parts.push((&text[start..at], Some(*id)));
                at += token.len();
                start = at;
            }
            None => at += next.len_utf8(),
        }
    }
    parts.push((&text[start..], None));
    parts
}
