//! How a table is read, as far as a file leaves it open: header, delimiter, decimal mark, missing values, categories.

use crate::names::names;
use std::str::FromStr;

/// The options of [`Table::read`](super::Table::read). What is left open is found from the first lines of the file.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Columns of categories.
    pub categorical: Vec<Categorical>,
    /// Whether the first line of a .csv or .tsv file names the columns.
    pub header: Header,
    /// What separates the cells of a .csv or .tsv file.
    pub delimiter: Option<Delimiter>,
    /// The decimal mark of a .csv or .tsv file.
    pub decimal: Option<Decimal>,
    /// Further words for a missing value, in files of text; a number also stands for its other spellings.
    pub na: Vec<String>,
}

/// Whether the first line of a table names its columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// Where it can be told from the lines below it.
    #[default]
    Auto,
    /// It does.
    Yes,
    /// It is a row.
    No,
}

names!(Header {
    Auto = "auto": "found from the lines below the first",
    Yes = "yes": "the first line names the columns",
    No = "no": "the first line is a row",
});

/// The byte that separates cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delimiter(pub(super) u8);

impl FromStr for Delimiter {
    type Err = String;

    /// One ASCII character that is no letter, digit or quote, or `tab`.
    fn from_str(text: &str) -> Result<Delimiter, String> {
        match text.as_bytes() {
            b"tab" | b"\\t" => Ok(Delimiter(b'\t')),
            &[byte]
                if byte.is_ascii_punctuation() && !b"\".+-_'".contains(&byte)
                    || text == "\t"
                    || text == " " =>
            {
                Ok(Delimiter(byte))
            }
            _ => Err("one character such as `;` or `|`, or `tab`, was expected".into()),
        }
    }
}

impl std::fmt::Display for Delimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.0 {
            b'\t' => write!(f, "tab"),
            byte => write!(f, "`{}`", char::from(byte)),
        }
    }
}

/// What stands between the whole part of a number and its fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal {
    /// As in 1.5.
    Point,
    /// As in 1,5.
    Comma,
}

impl FromStr for Decimal {
    type Err = String;

    fn from_str(text: &str) -> Result<Decimal, String> {
        match text {
            "." => Ok(Decimal::Point),
            "," => Ok(Decimal::Comma),
            _ => Err("`.` or `,` was expected".into()),
        }
    }
}

impl Decimal {
    /// A cell as a number, which may be infinite or NaN; none where it is no number. Thousands separators are not read.
    pub(super) fn number(self, cell: &str) -> Option<f64> {
        match self {
            Decimal::Point => cell.parse().ok(),
            Decimal::Comma if cell.contains(',') && !cell.contains('.') => {
                cell.replacen(',', ".", 1).parse().ok()
            }
            Decimal::Comma if cell.contains('.') => None,
            Decimal::Comma => cell.parse().ok(),
        }
    }
}

/// How to treat rows with a missing value in a column that is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// As an error that names the first.
    #[default]
    Raise,
    /// Leave them out.
    Omit,
}

names!(Missing {
    Raise = "raise": "an error that names the first",
    Omit = "omit": "the row is left out",
});

/// A column of categories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Categorical {
    /// Its name or number.
    pub column: String,
    /// One column of zeros and ones per category, instead of one of their numbers in ascending order.
    pub onehot: bool,
}

impl FromStr for Categorical {
    type Err = String;

    /// `COL`, or `COL:onehot`.
    fn from_str(text: &str) -> Result<Categorical, String> {
        Ok(match text.strip_suffix(":onehot") {
            Some(column) => Categorical { column: column.into(), onehot: true },
            None => Categorical { column: text.into(), onehot: false },
        })
    }
}

impl TableOptions {
    /// Whether a cell of text is a missing value: the words of pandas, `?`, `\N`, and those of the options.
    pub(super) fn is_missing(&self, cell: &str) -> bool {
        let known = matches!(
            cell,
            "" | "?"
                | "NA"
                | "N/A"
                | "n/a"
                | "<NA>"
                | "#N/A"
                | "#N/A N/A"
                | "#NA"
                | "NaN"
                | "nan"
                | "-NaN"
                | "-nan"
                | "NULL"
                | "Null"
                | "null"
                | "None"
                | "none"
                | "\\N"
                | "1.#IND"
                | "-1.#IND"
                | "1.#QNAN"
                | "-1.#QNAN"
        );
        let same = |word: &String| match (word.parse::<f64>(), cell.parse::<f64>()) {
            (Ok(word), Ok(cell)) => word == cell,
            _ => word == cell,
        };
        known || self.na.iter().any(same)
    }

    /// Whether a cell of a column of categories is missing: `None` is a category there unless an option says otherwise.
    pub(super) fn is_missing_category(&self, cell: &str) -> bool {
        self.is_missing(cell) && (!matches!(cell, "None" | "none") || self.na.iter().any(|word| word == cell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_comma_is_read_and_thousands_are_not() {
        let comma = |cell| Decimal::Comma.number(cell);
        assert_eq!((comma("-0,5"), comma("1,5e3"), comma("7")), (Some(-0.5), Some(1500.0), Some(7.0)));
        assert_eq!((comma("1.5"), comma("1.234,5"), comma("1,2,3")), (None, None, None));
        assert_eq!((Decimal::Point.number("1,5"), Decimal::Point.number("1.5")), (None, Some(1.5)));
    }

    #[test]
    fn words_for_a_missing_value_are_those_of_pandas_and_of_the_options() {
        let options = TableOptions { na: vec!["-99".into(), "gone".into()], ..TableOptions::default() };
        for word in ["", "NULL", "None", "#N/A", "nan", "<NA>", "\\N", "-99", "-99.0", "gone"] {
            assert!(options.is_missing(word), "{word}");
        }
        for word in ["0", "-98", "Nan", "missing"] {
            assert!(!options.is_missing(word), "{word}");
        }
        assert!(!options.is_missing_category("None") && options.is_missing_category("NULL"));
    }

    #[test]
    fn a_delimiter_is_one_sign() {
        for (text, byte) in [(";", b';'), ("tab", b'\t'), ("|", b'|'), (" ", b' '), ("\\t", b'\t')] {
            assert_eq!(text.parse(), Ok(Delimiter(byte)));
        }
        for text in ["", "a", "\"", ";;", ".", "5", "é"] {
            assert!(text.parse::<Delimiter>().is_err(), "{text}");
        }
    }
}
