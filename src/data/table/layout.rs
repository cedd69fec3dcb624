//! The layout of a .csv or .tsv file, found from its first lines: delimiter, comment lines, header, decimal mark. What the
//! options give is taken as given. A first line that could be a header or a row is refused, with the option that decides.

use super::options::{Decimal, Delimiter, Header, TableOptions};

/// How many rows are looked at, and how many bytes before the last of them.
const HEAD: (usize, u64) = (1000, 1 << 20);

/// How a file of cells is laid out.
#[derive(Debug)]
pub(super) struct Layout {
    pub delimiter: u8,
    pub decimal: Decimal,
    /// The names of the columns, where there is a header.
    pub names: Option<Vec<String>>,
    /// Cells of a row.
    pub width: usize,
    /// Records before the first row: comments and the header.
    pub skip: usize,
    /// How many of them are comments.
    pub comments: usize,
    header: &'static str,
}

/// A first line that could be a header or a row.
pub(super) struct Unclear {
    pub line: u64,
    pub reason: String,
}

/// A record and its line.
struct Row {
    line: u64,
    cells: Vec<String>,
}

/// What the first line that is no comment is.
enum Top {
    /// The header, and why.
    Names(&'static str),
    Row,
    Unclear,
}

const BY_COMMENT: &str = "the header is the last line that begins with `#`";

impl Layout {
    /// Finds the layout of these bytes. The delimiter of a .tsv file is known.
    pub fn of(bytes: &[u8], known: Option<u8>, options: &TableOptions) -> Result<Layout, Unclear> {
        let separator = separator_line(bytes); // as Excel writes it
        let given = options.delimiter.map(|delimiter| delimiter.0).or(separator).or(known);
        let delimiter = given.unwrap_or_else(|| delimiter_of(bytes, options));
        let rows = head(bytes, delimiter);
        let start = usize::from(separator.is_some());
        let own = |row: &Row| !begins_as_comment(&row.cells, options);
        let first = rows.iter().skip(start).position(own).map_or(start, |at| start + at);
        let Some(top) = rows.get(first) else {
            let decimal = options.decimal.unwrap_or(Decimal::Point);
            return Ok(Layout {
                delimiter,
                decimal,
                names: None,
                width: 0,
                skip: start,
                comments: 0,
                header: "empty",
            });
        };
        let width = top.cells.len();
        let below: Vec<&Row> = rows[first + 1..].iter().filter(|row| row.cells.len() == width).collect();
        let decimal = options.decimal.unwrap_or_else(|| decimal_of(top, &below));
        let comments = first - start;
        let layout = |names, header_lines, comments, header| Layout {
            delimiter,
            decimal,
            names,
            width,
            skip: first + header_lines,
            comments,
            header,
        };
        let names = Some(top.cells.clone());
        let in_comment = rows[start..first].last().and_then(|row| names_in_comment(row, width, decimal));
        Ok(match (options.header, top_line(top, &below, decimal, options), in_comment) {
            (Header::Yes, _, _) => layout(names, 1, comments, "header by --header"),
            (Header::No, _, _) => layout(None, 0, comments, "no header by --header"),
            (Header::Auto, Top::Names(why), _) => layout(names, 1, comments, why),
            (Header::Auto, Top::Row | Top::Unclear, Some(found)) => {
                layout(Some(found), 0, comments - 1, BY_COMMENT)
            }
            (Header::Auto, Top::Row, None) => layout(None, 0, comments, "no header"),
            (Header::Auto, Top::Unclear, None) => {
                let shown: String = top.cells.join(", ").chars().take(40).collect();
                let reason = format!(
                    "`{shown}` may be a header or the first row; --header yes or --header no decides"
                );
                return Err(Unclear { line: top.line, reason });
            }
        })
    }

    /// The layout in words.
    pub fn text(&self, comments: usize) -> String {
        let decimal = match self.decimal {
            Decimal::Point => "point",
            Decimal::Comma => "comma",
        };
        let comments = if comments > 0 { format!(", comment lines {comments}") } else { String::new() };
        format!("{}, delimiter {}, decimal {decimal}{comments}", self.header, Delimiter(self.delimiter))
    }

    /// Whether a record is a comment: it begins with `#` and has another number of cells than a row.
    pub fn is_comment(&self, cells: &[&str], options: &TableOptions) -> bool {
        cells.len() != self.width && begins_as_comment(cells, options)
    }
}

/// The first records; quotes and line ends as in the whole file.
fn head(bytes: &[u8], delimiter: u8) -> Vec<Row> {
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).flexible(true).delimiter(delimiter);
    let records = reader.from_reader(bytes).into_byte_records().take(HEAD.0).flatten();
    records
        .take_while(|record| record.position().is_none_or(|at| at.byte() < HEAD.1))
        .map(|record| Row {
            line: record.position().map_or(0, csv::Position::line),
            cells: record.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_string()).collect(),
        })
        .collect()
}

/// The delimiter that a first line such as `sep=;` names.
fn separator_line(bytes: &[u8]) -> Option<u8> {
    match bytes.strip_prefix(b"sep=")? {
        [delimiter, b'\r' | b'\n', ..] => Some(*delimiter),
        _ => None,
    }
}

/// Whether a record begins with `#`, and not with a word for a missing value such as `#N/A`.
fn begins_as_comment(cells: &[impl AsRef<str>], options: &TableOptions) -> bool {
    cells.first().map(AsRef::as_ref).is_some_and(|cell| cell.starts_with('#') && !options.is_missing(cell))
}

/// The delimiter that splits most rows into equally many cells, two or more, of which the largest share are numbers or
/// missing; the first of these in the order of the list.
fn delimiter_of(bytes: &[u8], options: &TableOptions) -> u8 {
    let mut best = (b',', -1.0);
    for delimiter in [b',', b';', b'\t', b'|'] {
        let rows = head(bytes, delimiter);
        let rows: Vec<&Row> = rows.iter().filter(|row| !begins_as_comment(&row.cells, options)).collect();
        let width = rows.first().map_or(0, |row| row.cells.len());
        let same = rows.iter().filter(|row| row.cells.len() == width).count();
        let is_number = |cell: &&String| {
            let commas = delimiter != b',' && Decimal::Comma.number(cell).is_some();
            commas || Decimal::Point.number(cell).is_some() || options.is_missing(cell)
        };
        let cells = || rows.iter().skip(1).flat_map(|row| &row.cells);
        let share = cells().filter(is_number).count() as f64 / cells().count().max(1) as f64;
        if width > 1 && 2 * same > rows.len() && share > best.1 {
            best = (delimiter, share);
        }
    }
    best.0
}

/// A comma where cells have decimal commas and none a decimal point; `1,234` alone could be a thousand, and decides nothing.
fn decimal_of(top: &Row, below: &[&Row]) -> Decimal {
    let mut commas = false;
    for cell in std::iter::once(top).chain(below.iter().copied()).flat_map(|row| &row.cells) {
        if cell.contains('.') && Decimal::Point.number(cell).is_some() {
            return Decimal::Point;
        }
        if let (Some((whole, fraction)), true) = (cell.split_once(','), Decimal::Comma.number(cell).is_some())
        {
            let digits = whole.trim_start_matches(['-', '+']);
            commas |= fraction.len() != 3 || digits.len() > 3 || digits.is_empty() || digits.starts_with('0');
        }
    }
    if commas { Decimal::Comma } else { Decimal::Point }
}

/// The names in a comment right above the first row, as numpy's savetxt writes them.
fn names_in_comment(row: &Row, width: usize, decimal: Decimal) -> Option<Vec<String>> {
    let mut names = row.cells.clone();
    names[0] = names[0].trim_start_matches('#').trim().to_string();
    let is_text = |name: &String| !name.is_empty() && decimal.number(name).is_none();
    (names.len() == width && names.iter().any(is_text)).then_some(names)
}

/// What a column holds below the first line.
#[derive(Default)]
struct Below {
    /// Cells of digits alone.
    whole: usize,
    /// Other numbers.
    fraction: usize,
    text: usize,
    /// Cells equal to that of the first line.
    again: usize,
    /// The first two cells, where they are whole.
    next: [Option<i64>; 2],
}

impl Below {
    fn of(top: &str, rows: &[&Row], j: usize, decimal: Decimal, options: &TableOptions) -> Below {
        let mut found = Below { next: [0, 1].map(|i| whole(&rows.get(i)?.cells[j])), ..Below::default() };
        for cell in rows.iter().map(|row| &row.cells[j]).filter(|cell| !options.is_missing(cell)) {
            found.again += usize::from(cell == top);
            match (whole(cell), decimal.number(cell)) {
                (Some(_), _) => found.whole += 1,
                (None, Some(_)) => found.fraction += 1,
                (None, None) => found.text += 1,
            }
        }
        found
    }

    /// Whether the column cannot hold a whole number of a row: all its numbers have a fraction, or it holds text.
    fn excludes_whole(&self) -> bool {
        self.whole == 0 && self.fraction + self.text > 0
    }

    /// Whether the column is only text.
    fn is_text(&self) -> bool {
        self.text > 0 && self.whole + self.fraction == 0
    }

    /// Whether the cells count on from `top`.
    fn counts_from(&self, top: i64) -> bool {
        matches!(self.next, [Some(a), Some(b)] if a.checked_sub(top) == b.checked_sub(a) && a != top)
    }
}

fn whole(cell: &str) -> Option<i64> {
    let digits = !cell.is_empty() && cell.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| cell.parse().ok()).flatten()
}

/// Tells whether the first line is a header.
fn top_line(top: &Row, rows: &[&Row], decimal: Decimal, options: &TableOptions) -> Top {
    let columns: Vec<(&str, Below)> = top
        .cells
        .iter()
        .enumerate()
        .map(|(j, cell)| (cell.as_str(), Below::of(cell, rows, j, decimal, options)))
        .collect();
    let is_number = |cell: &str| decimal.number(cell).is_some();
    let is_text = |cell: &str| !is_number(cell) && !options.is_missing(cell);
    let texts: Vec<&Below> =
        columns.iter().filter(|(cell, _)| is_text(cell)).map(|(_, below)| below).collect();
    if texts.is_empty() {
        return numbers_on_top(&columns);
    }
    if texts.iter().any(|below| !below.is_text()) || rows.is_empty() {
        return Top::Names("header in the first line"); // a word above numbers
    }
    if 2 * texts.iter().filter(|below| below.again > 0).count() >= texts.len() {
        return Top::Row; // the words come again as values
    }
    let numbers: Vec<&(&str, Below)> = columns.iter().filter(|(cell, _)| is_number(cell)).collect();
    match () {
        () if numbers.iter().any(|(cell, _)| whole(cell).is_none()) => Top::Row,
        () if numbers.iter().all(|(_, below)| below.excludes_whole()) => {
            Top::Names("header in the first line")
        }
        () => Top::Unclear,
    }
}

/// Tells whether a first line of numbers numbers the columns: 0, 1, 2 or from another number on, as pandas writes columns
/// that have no names, perhaps after the empty name of an index.
fn numbers_on_top(columns: &[(&str, Below)]) -> Top {
    let index = usize::from(columns.first().is_some_and(|(cell, _)| cell.is_empty()));
    let numbers: Option<Vec<i64>> = columns[index..].iter().map(|(cell, _)| whole(cell)).collect();
    let Some(numbers) = numbers.filter(|numbers| columns.len() > 1 && !numbers.is_empty()) else {
        return Top::Row;
    };
    if numbers.windows(2).any(|pair| pair[0].checked_add(1) != Some(pair[1])) {
        return Top::Row;
    }
    let numbered = || columns[index..].iter().map(|(_, below)| below);
    let indexed = index == 1 && columns[0].1.next == [Some(0), Some(1)] && columns[0].1.again == 0;
    let mixed = numbered().any(|below| below.whole > 0 && below.fraction > 0);
    let counting = numbered().zip(&numbers).any(|(below, &top)| below.counts_from(top));
    let excluded = numbered().any(Below::excludes_whole);
    match numbers[0] {
        _ if indexed || excluded && !mixed && !counting => {
            Top::Names("the first line numbers the columns, and is taken as a header (--header no: as a row)")
        }
        0 if numbered().any(|below| below.whole + below.fraction + below.text > 0) => Top::Unclear,
        _ => Top::Row,
    }
}
